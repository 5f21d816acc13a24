//! From the checked topology to what a picture is built of.

use crate::model::topology::Topology;
use crate::model::view::{Compiled, Source};
use crate::steer::route::Router;

/// Adds what requests need to find their way. `generation` counts applied configs from 1.
pub fn compile(topology: Topology, source: Source, generation: u64) -> Compiled {
    let routes = Box::new(Router::build(&topology));
    Compiled { generation, topology, routes, source }
}
