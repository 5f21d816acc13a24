//! The answer of `GET /v1/status` (DESIGN.md section 7): versioned JSON, shared by server and CLI.
//! Times are wall-clock RFC 3339 strings, filled in by `admin`, which knows the wall clock.

use super::time::Moment;
use super::view::State;
use serde::{Deserialize, Serialize};

/// Everything an operator asks first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Name of this process.
    pub edge: String,
    /// Number of the applied config.
    pub generation: u64,
    /// `active`, `observe` or `frozen`.
    pub mode: String,
    /// The fault may be ours or everybody's; states are held.
    pub edge_suspect: bool,
    /// By region.
    pub regions: Vec<RegionStatus>,
    /// By pool.
    pub pools: Vec<PoolStatus>,
    /// The config.
    pub config: ConfigStatus,
    /// The other edges; absent: this one is alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<super::fleet::FleetStatus>,
}

/// One region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegionStatus {
    /// Its name.
    pub name: String,
    /// Its jurisdiction.
    pub jurisdiction: Option<String>,
    /// Its state.
    pub state: State,
    /// The override, if any.
    pub drained: Option<Drained>,
    /// Why it is in its state, in words.
    pub cause: Option<String>,
    /// Since when.
    pub since: When,
}

/// The drain override.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drained {
    /// `config file`, `operator NAME`, `drill ID`.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Ends by itself then.
    pub until: Option<When>,
    /// The config file drains it, too: lifting an override leaves that.
    #[serde(default)]
    pub by_file: bool,
}

/// One pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Its service.
    pub service: String,
    /// Its region.
    pub region: String,
    /// Its state.
    pub state: State,
    /// New work avoids it for the moment.
    pub suspect: bool,
    /// The fraction of the service's requests it gets now.
    pub share: f64,
    /// Requests in flight.
    pub inflight: u32,
    /// How many it may have.
    pub limit: u32,
    /// Attempts per second.
    pub rate: f64,
    /// Why it is in its state, in words.
    pub cause: Option<String>,
    /// Since when.
    pub since: When,
    /// Its endpoints.
    pub endpoints: Vec<EndpointStatus>,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// As configured.
    pub address: String,
    /// Takes requests.
    pub up: bool,
    /// Ejected until then.
    pub ejected_until: Option<When>,
    /// Why it is out.
    pub cause: Option<String>,
}

/// The config.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// The file.
    pub path: String,
    /// When it was applied.
    pub loaded_at: Option<When>,
    /// Why the last reload was refused; `None`: it was not.
    pub last_error: Option<String>,
}

/// A point in time: monotonic inside, RFC 3339 outside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum When {
    /// RFC 3339.
    Wall(String),
    /// Not converted yet.
    Moment(Moment),
}

impl From<Moment> for When {
    fn from(m: Moment) -> Self {
        Self::Moment(m)
    }
}
