//! The admin API, metrics and the dashboard.
