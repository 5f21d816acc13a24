//! Dense indexes into a [`Topology`](super::topology::Topology).
//!
//! An index is only meaningful together with the generation it came from. Identity across
//! generations is the *name* (region `east`, pool `api/east`, endpoint `10.1.0.11:8080` of that pool).

use serde::{Deserialize, Serialize};

macro_rules! index {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        pub struct $name(pub u32);
        impl $name {
            /// The index as `usize`, for slicing.
            #[inline]
            pub const fn at(self) -> usize { self.0 as usize }
        }
        impl From<usize> for $name {
            #[inline]
            fn from(i: usize) -> Self { Self(i as u32) }
        }
    )+};
}

index! {
    /// A region, in file order.
    RegionIx,
    /// A service, in file order.
    ServiceIx,
    /// A pool: one service's endpoints in one region. Global over all services.
    PoolIx,
    /// An endpoint. Global over all pools; a pool's endpoints are contiguous.
    EndpointIx,
    /// A route, in file order (first match wins).
    RouteIx,
    /// A share table: one per service and distinct set of allowed regions.
    TableIx,
}

/// A set of regions, at most 128.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord)]
pub struct RegionSet(pub u128);

impl RegionSet {
    /// The most regions a topology may have.
    pub const MAX: usize = 128;
    /// No region.
    pub const EMPTY: Self = Self(0);

    /// Every region of a topology with `n` regions.
    pub fn all(n: usize) -> Self {
        if n >= Self::MAX { Self(u128::MAX) } else { Self((1u128 << n) - 1) }
    }
    /// Whether the region is in the set.
    #[inline]
    pub fn has(self, r: RegionIx) -> bool {
        self.0 >> r.0 & 1 == 1
    }
    /// The set with the region added.
    #[must_use]
    pub fn with(self, r: RegionIx) -> Self {
        Self(self.0 | 1 << r.0)
    }
    /// The set with the region removed.
    #[must_use]
    pub fn without(self, r: RegionIx) -> Self {
        Self(self.0 & !(1 << r.0))
    }
    /// Whether no region is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// The members, ascending.
    pub fn iter(self) -> impl Iterator<Item = RegionIx> {
        (0..128u32).filter(move |i| self.0 >> i & 1 == 1).map(RegionIx)
    }
}
