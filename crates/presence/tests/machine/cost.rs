//! What presence costs, counted in bytes handed to the transport.

use crate::world::{World, secs};

const TIME: u64 = 1800;
const MAX_RATE: usize = 1024;

fn rates(world: &World, n: usize, time: u64) -> (usize, usize) {
    let node = &world.nodes[n];
    (node.bytes_out / time as usize, node.bytes_in / time as usize)
}

#[test]
fn a_hundred_and_fifty_contacts_with_sessions_cost_less_than_a_kilobyte_a_second() {
    let mut world = World::new(151);
    world.watch(0, 1..151);
    for n in 1..151 {
        world.watch(n, [0]);
        if n <= 8 { world.neighbors(0, n) } else { world.link(0, n) }
    }
    // The exchange of the records included.
    world.run(secs(TIME));
    let (sent, received) = rates(&world, 0, TIME);
    assert!(sent <= MAX_RATE && received <= MAX_RATE, "{sent} B/s out, {received} B/s in");
    println!("150 contacts with sessions: {sent} B/s out, {received} B/s in");
}

#[test]
fn so_do_a_hundred_and_fifty_behind_eight_neighbours() {
    let mut world = World::new(159);
    world.watch(0, 9..159);
    for neighbor in 1..=8 {
        world.neighbors(0, neighbor);
    }
    for contact in 9..159 {
        world.watch(contact, [0]);
        for step in 0..3 {
            world.neighbors(contact, 1 + (contact + step) % 8);
        }
    }
    world.run(secs(TIME));
    let known = world.nodes[0].machine.social();
    let online = known.iter().filter(|status| status.state.is_present()).count();
    assert_eq!(online, 150);
    let (sent, received) = rates(&world, 0, TIME);
    assert!(sent <= MAX_RATE && received <= MAX_RATE, "{sent} B/s out, {received} B/s in");
    println!("150 contacts behind neighbours: {sent} B/s out, {received} B/s in");
}
