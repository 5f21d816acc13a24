//! `evenkeel_fleet_*`: the other edges. Nothing of it is there where the config has no fleet.

use super::Beside;
use super::text::{Kind, Text};
use crate::model::fleet::Opinion;
use std::sync::atomic::Ordering::Relaxed;

pub(super) fn write(out: &mut Text, beside: &Beside) {
    let Some(status) = &beside.status else { return };
    let (Some(f), Some(fleet)) = (&status.fleet, &beside.fleet) else { return };
    let stats = fleet.stats();
    let gauges: [(&str, &str, u64); 4] = [
        ("evenkeel_fleet_connected", "Connected to NATS.", f.connected.into()),
        ("evenkeel_fleet_quorum", "More than half of the edges known of are heard.", f.quorum.into()),
        ("evenkeel_fleet_edges", "Edges heard within their lease, this one among them.", f.live.into()),
        ("evenkeel_fleet_sharing", "Edges among which capacities and trials are divided, this one among them.", f.sharing.into()),
    ];
    for (name, help, value) in gauges {
        out.family(name, Kind::Gauge, help);
        out.line("", &[], value);
    }
    out.family("evenkeel_fleet_opinions", Kind::Gauge, "Live edges by what they think of a pool.");
    for p in &status.pools {
        let pool = format!("{}/{}", p.service, p.region);
        for opinion in [Opinion::Unknown, Opinion::Well, Opinion::Suspect, Opinion::Down] {
            let thinks = |e: &&crate::model::fleet::EdgeStatus| e.live && e.pools.get(&pool).is_some_and(|o| o.opinion == opinion);
            let n = f.edges.iter().filter(thinks).count() as u64;
            out.line("", &[("service", &p.service), ("region", &p.region), ("opinion", opinion.label())], n);
        }
    }
    out.family("evenkeel_fleet_alone", Kind::Gauge, "This edge alone sees the region down: its own uplink is suspect.");
    for r in &status.regions {
        out.line("", &[("region", &r.name)], u64::from(f.alone.contains(&r.name)));
    }
    let counters = [
        ("evenkeel_fleet_views_sent_total", "Views sent.", &stats.sent),
        ("evenkeel_fleet_views_heard_total", "Views heard.", &stats.heard),
        ("evenkeel_fleet_garbled_total", "Messages that could not be understood.", &stats.garbled),
        ("evenkeel_fleet_connects_total", "Connections to NATS opened.", &stats.connects),
        ("evenkeel_fleet_orders_followed_total", "Orders given through other edges and followed here.", &stats.followed),
        ("evenkeel_fleet_orders_refused_total", "Orders refused because somebody was first.", &stats.refused),
    ];
    for (name, help, value) in counters {
        out.family(name, Kind::Counter, help);
        out.line("", &[], value.load(Relaxed));
    }
}
