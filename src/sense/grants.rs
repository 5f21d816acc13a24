//! Allowances for what costs backends extra: retries, hedges, trials. Token buckets whose tokens lie
//! in the cells; here is decided how many are added and how many may be saved up.

/// Tokens to add to one bucket, and the most it may hold afterwards.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Allowance {
    /// Tokens to add now (fractions add up).
    pub add: f64,
    /// The most it may hold.
    pub cap: f64,
}

/// What was earned since the last time somebody asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grants {
    /// Retry tokens, by `ServiceIx`.
    pub retry: Vec<Allowance>,
    /// Hedge tokens, by `RouteIx`.
    pub hedge: Vec<Allowance>,
    /// Trial tokens, by `PoolIx`.
    pub trial: Vec<Allowance>,
}
