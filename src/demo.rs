//! Three simulated regions, an open-loop load and the proxy in one process.
