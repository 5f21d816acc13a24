//! Pure: from events to reports.
