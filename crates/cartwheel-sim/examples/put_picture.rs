//! Draws `docs/src/images/put.svg`: a put on the ring while a home replica is down.
//!
//! The ring, the key's partition and its preference list are computed by [`cartwheel_core::ring`]. The output is the same on every
//! machine. `cargo run -p cartwheel-sim --example put_picture` writes the file; the test below fails if it is out of date.

use std::f64::consts::TAU;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use cartwheel_core::ring::balanced::{SPREAD, balanced};
use cartwheel_core::ring::{NodeInfo, PartitionId, Partitions, PreferenceEntry, Ring, RingVersion};
use cartwheel_core::value::dot::NodeId;
use cartwheel_core::value::token::Token;

const NODES: [&str; 5] = ["node-1", "node-2", "node-3", "node-4", "node-5"];
/// Fills of the nodes' partitions. They also differ in lightness.
const FILLS: [&str; 5] = ["#bcd9f0", "#f6d9b0", "#c9e7cd", "#e6d0ea", "#f3c9c5"];
const PARTITIONS: u32 = 16;
const N: usize = 3;

const CENTRE: (f64, f64) = (215.0, 225.0);
/// Of the band of partitions.
const RADII: (f64, f64) = (112.0, 152.0);
/// Left edge and width of the nodes' boxes.
const BOX: (f64, f64) = (450.0, 210.0);
/// Top edges of the boxes, in the order of the preference list, and their height.
const TOPS: [f64; 4] = [62.0, 154.0, 246.0, 338.0];
const HEIGHT: f64 = 60.0;

fn main() -> ExitCode {
    let path = path();
    match std::fs::write(&path, picture()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write {}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/images/put.svg")
}

fn ring() -> Ring {
    let nodes: Vec<NodeInfo> = NODES.iter().map(|name| NodeInfo::new(NodeId::of_name(name))).collect();
    let partitions = Partitions::new(PARTITIONS).expect("in bounds");
    let owners = balanced(None, &nodes, partitions, SPREAD).expect("there are nodes");
    Ring::new(RingVersion::default(), partitions, owners, nodes).expect("owners are nodes")
}

/// The place of a node in [`NODES`].
fn place(node: NodeId) -> usize {
    NODES.iter().position(|name| NodeId::of_name(name) == node).expect("the ring has these nodes")
}

fn picture() -> String {
    let ring = ring();
    let partition = ring.partition_of(Token::of_key(b"carts", b"alice"));
    let list: Vec<PreferenceEntry> = ring.preference_list(partition, N).take(N + 1).collect();
    let mut svg = String::new();
    draw(&mut svg, &ring, partition, &list).expect("a String takes everything");
    svg
}

/// The angle, in radians clockwise from the right, at which a partition begins: the key's partition is at the upper right.
fn angle(partition: u32, key: PartitionId) -> f64 {
    let steps = f64::from(partition) - key.index() as f64 - 2.0;
    steps * TAU / f64::from(PARTITIONS)
}

fn at(radius: f64, angle: f64) -> (f64, f64) {
    (CENTRE.0 + radius * angle.cos(), CENTRE.1 + radius * angle.sin())
}

fn draw(svg: &mut String, ring: &Ring, key: PartitionId, list: &[PreferenceEntry]) -> std::fmt::Result {
    writeln!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="960" height="450" viewBox="0 0 960 450" font-family="Helvetica, Arial, DejaVu Sans, sans-serif" font-size="14" fill="#1b1f24" role="img" aria-labelledby="title">
<title id="title">A put of carts/alice with N=3 and W=2: one home replica is down, and the next node on the ring stands in for it with a hint</title>
<defs>
<marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto"><path d="M0,1 L9,5 L0,9 z" fill="#1b1f24"/></marker>
<marker id="red" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto"><path d="M0,1 L9,5 L0,9 z" fill="#b3261e"/></marker>
</defs>
<rect width="960" height="450" rx="8" fill="#ffffff"/>"##
    )?;
    draw_ring(svg, ring, key, list)?;
    list.iter().zip(TOPS).enumerate().try_for_each(|(at, (replica, top))| draw_node(svg, at, *replica, top))?;
    draw_messages(svg, list)?;
    writeln!(svg, "</svg>")
}

fn draw_ring(svg: &mut String, ring: &Ring, key: PartitionId, list: &[PreferenceEntry]) -> std::fmt::Result {
    for (partition, owner) in (0..PARTITIONS).zip(ring.owners()) {
        let (from, to) = (angle(partition, key), angle(partition + 1, key));
        let ((x1, y1), (x2, y2)) = (at(RADII.1, from), at(RADII.1, to));
        let ((x3, y3), (x4, y4)) = (at(RADII.0, to), at(RADII.0, from));
        let owner = place(*owner);
        writeln!(
            svg,
            r##"<path d="M{x1:.1},{y1:.1} A{r:.0},{r:.0} 0 0 1 {x2:.1},{y2:.1} L{x3:.1},{y3:.1} A{s:.0},{s:.0} 0 0 0 {x4:.1},{y4:.1} z" fill="{fill}" stroke="#ffffff" stroke-width="2"/>"##,
            r = RADII.1,
            s = RADII.0,
            fill = FILLS[owner]
        )?;
        let (x, y) = at((RADII.0 + RADII.1) / 2.0, (from + to) / 2.0);
        writeln!(svg, r#"<text x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#, y + 5.0, owner + 1)?;
    }
    // The key is in the middle of its partition, which is where its token would be seen at this scale.
    let step = TAU / f64::from(PARTITIONS);
    let (x, y) = at(RADII.0 - 12.0, angle(key.index() as u32, key) + step / 2.0);
    writeln!(svg, r##"<circle cx="{x:.1}" cy="{y:.1}" r="5" fill="#b3261e"/>"##)?;
    writeln!(
        svg,
        r##"<text x="{cx}" y="{y1}" text-anchor="middle" font-weight="bold" fill="#b3261e">carts/alice</text>
<text x="{cx}" y="{y2}" text-anchor="middle">hashes to partition {key}</text>
<text x="{cx}" y="{y3}" text-anchor="middle">of {PARTITIONS}; N = {N}, W = 2</text>"##,
        cx = CENTRE.0,
        y1 = CENTRE.1 - 16.0,
        y2 = CENTRE.1 + 6.0,
        y3 = CENTRE.1 + 26.0,
        key = key.index()
    )?;
    // From each partition on the preference list to its owner's box.
    for (at_list, top) in (0..list.len()).zip(TOPS) {
        let middle = angle(key.index() as u32 + at_list as u32, key) + step / 2.0;
        let ((x1, y1), y2) = (at(RADII.1 + 3.0, middle), top + HEIGHT / 2.0);
        writeln!(
            svg,
            r##"<path d="M{x1:.1},{y1:.1} L{:.1},{y2:.1}" fill="none" stroke="#8a929b" stroke-dasharray="3 3"/>"##,
            BOX.0 - 4.0
        )?;
    }
    writeln!(
        svg,
        r##"<text x="{}" y="410" text-anchor="middle" fill="#57606a">The preference list walks the ring clockwise.</text>"##,
        CENTRE.0
    )
}

fn draw_node(svg: &mut String, at_list: usize, replica: PreferenceEntry, top: f64) -> std::fmt::Result {
    let place = place(replica.node());
    let down = at_list == 2;
    let role = match (replica, at_list) {
        (PreferenceEntry::Home(_), 0) => "home, coordinates the put",
        (PreferenceEntry::Home(_), 2) => "home, down",
        (PreferenceEntry::Home(_), _) => "home",
        (PreferenceEntry::StandIn(_), _) => "stand-in",
    };
    let (fill, stroke) = if down { ("#eceff1", "#b3261e") } else { (FILLS[place], "#57606a") };
    let dash = if down { r#" stroke-dasharray="6 4""# } else { "" };
    writeln!(
        svg,
        r##"<rect x="{}" y="{top}" width="{}" height="{HEIGHT}" rx="6" fill="{fill}" stroke="{stroke}"{dash}/>
<text x="{x}" y="{}" font-weight="bold">{}</text>
<text x="{x}" y="{}">{role}</text>"##,
        BOX.0,
        BOX.1,
        top + 25.0,
        NODES[place],
        top + 46.0,
        x = BOX.0 + 14.0,
    )
}

fn draw_messages(svg: &mut String, list: &[PreferenceEntry]) -> std::fmt::Result {
    let (right, client) = (BOX.0 + BOX.1, 846.0);
    let middle = |place: usize| TOPS[place] + HEIGHT / 2.0;
    let down = NODES[place(list[2].node())];
    writeln!(
        svg,
        r##"<rect x="{client}" y="{}" width="84" height="{HEIGHT}" rx="6" fill="#ffffff" stroke="#57606a"/>
<text x="{}" y="{}" text-anchor="middle" font-weight="bold">client</text>
<path d="M{client},{y1} L{x2},{y1}" stroke="#1b1f24" marker-end="url(#arrow)"/>
<text x="{tx}" y="{}" text-anchor="middle">1. put</text>
<path d="M{x2},{y2} L{},{y2}" stroke="#1b1f24" marker-end="url(#arrow)"/>
<text x="{tx}" y="{}" text-anchor="middle">4. 204, home=2</text>"##,
        TOPS[0],
        client + 42.0,
        middle(0) + 5.0,
        middle(0) - 18.0,
        client - 2.0,
        middle(0) + 27.0,
        y1 = middle(0) - 10.0,
        y2 = middle(0) + 9.0,
        x2 = right + 3.0,
        tx = (right + client) / 2.0,
    )?;
    let steps = [
        (1, "arrow", "#1b1f24", "2. the new version: synced".to_owned()),
        (2, "red", "#b3261e", "2. the new version: no answer".to_owned()),
        (3, "arrow", "#1b1f24", format!("3. the same, hint for {down}")),
    ];
    for (to, marker, colour, label) in steps {
        let (from, y, bend) = (TOPS[0] + HEIGHT - 6.0, middle(to), right + 16.0 + 18.0 * to as f64);
        writeln!(
            svg,
            r##"<path d="M{right},{from} C{bend},{} {bend},{y} {},{y}" fill="none" stroke="{colour}" marker-end="url(#{marker})"/>
<text x="{}" y="{}" fill="{colour}">{label}</text>"##,
            from + 20.0,
            right + 3.0,
            right + 60.0,
            y + 5.0
        )?;
    }
    let x = BOX.0 + 150.0;
    writeln!(
        svg,
        r##"<path d="M{x},{} L{x},{}" stroke="#1b1f24" stroke-dasharray="5 4" marker-end="url(#arrow)"/>
<text x="{}" y="{}" text-anchor="end">5. handed over later</text>"##,
        TOPS[3] - 2.0,
        TOPS[2] + HEIGHT + 3.0,
        x - 10.0,
        (TOPS[2] + HEIGHT + TOPS[3]) / 2.0 + 5.0,
    )
}

#[test]
fn the_committed_picture_is_current() {
    let committed = std::fs::read_to_string(path()).expect("the picture is in the repository");
    assert_eq!(committed, picture(), "run `cargo run -p cartwheel-sim --example put_picture`");
}
