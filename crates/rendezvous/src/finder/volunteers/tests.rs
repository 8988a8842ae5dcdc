use super::*;

fn place(rng: &mut SeededRng, shared: usize) -> MachineId {
    let mut id = [0; 32];
    for chunk in id.chunks_exact_mut(8) {
        chunk.copy_from_slice(&rng.next_u64().to_be_bytes());
    }
    for bit in 0..=shared {
        let mask = 0x80_u8 >> (bit % 8);
        id[bit / 8] &= !mask;
        if bit == shared {
            id[bit / 8] |= mask;
        }
    }
    MachineId::new(id)
}

fn at(n: usize) -> PeerAddr {
    let ip = [60 + (n / 256 % 64) as u8, n as u8, 1, 1];
    PeerAddr::known(MachineId::new([1; 32]), [SocketAddr::from((ip, 1))])
}

const LOCAL: MachineId = MachineId::new([0; 32]);

#[test]
fn far_machines_make_room_for_near_ones() {
    let (mut rng, mut known) = (SeededRng::from_number(1), Volunteers::new(LOCAL));
    let now = Tick::ZERO;
    for n in 0..8000_usize {
        // As ids are spread: half of all share no bit, a quarter one.
        let peer = place(&mut rng, (n + 1).trailing_zeros() as usize);
        known.met(now, peer, &at(n), at(n).addresses[0], false, &mut rng);
    }
    assert_eq!(known.len(), MAX_VOLUNTEERS);
    assert_eq!(known.sizes.iter().sum::<usize>(), MAX_VOLUNTEERS);
    let [far, near] = [0, 8].map(|bucket| known.members(bucket).count());
    assert!((30..=80).contains(&far), "{far}");
    assert!(near >= 8000 / 1024, "all of the near ones: {near}");
    let own = LookupKey::new([0; 32]);
    let best = known.best(now, &own, 8);
    let shared = best.iter().map(|peer| known.bucket(peer)).min();
    assert!(shared >= Some(9), "{shared:?}");
}

#[test]
fn hearsay_takes_nobodys_place() {
    let (mut rng, mut known) = (SeededRng::from_number(2), Volunteers::new(LOCAL));
    for n in 0..MAX_VOLUNTEERS {
        let peer = place(&mut rng, n % 4);
        known.met(Tick::ZERO, peer, &at(n), at(n).addresses[0], false, &mut rng);
    }
    let before: Vec<MachineId> = known.known.keys().copied().collect();
    for n in 0..2000_usize {
        let peer = place(&mut rng, n % 250);
        known.told(Tick::ZERO, peer, &at(n).addresses, false, &mut rng);
    }
    assert_eq!(known.known.keys().copied().collect::<Vec<_>>(), before);
    // After a while nobody knows who is still there.
    let later = Tick::ZERO + FRESH;
    known.told(later, place(&mut rng, 9), &at(1).addresses, false, &mut rng);
    assert_eq!(known.members(9).count(), 1);
    assert_eq!(known.len(), MAX_VOLUNTEERS);
}

#[test]
fn one_network_does_not_fill_a_bucket() {
    let (mut rng, mut known) = (SeededRng::from_number(3), Volunteers::new(LOCAL));
    for n in 0..100 {
        // Whatever they say of themselves, their packets come from one network.
        let peer = place(&mut rng, 5);
        known.met(Tick::ZERO, peer, &at(n), at(7).addresses[0], false, &mut rng);
    }
    assert_eq!((known.members(5).count(), known.len()), (MAX_PER_SITE, MAX_PER_SITE));
}

#[test]
fn the_unreachable_are_shunned_until_they_are_met() {
    let (mut rng, mut known) = (SeededRng::from_number(4), Volunteers::new(LOCAL));
    let (now, key) = (Tick::ZERO, LookupKey::new([0; 32]));
    let peers: Vec<MachineId> = (0..2 * MAX_VOLUNTEERS).map(|_| place(&mut rng, 0)).collect();
    for (n, peer) in peers.iter().enumerate() {
        known.met(now, *peer, &at(n), at(n).addresses[0], false, &mut rng);
        known.failed(now, *peer);
    }
    assert_eq!(known.len(), MAX_VOLUNTEERS);
    assert!(known.best(now, &key, 9).is_empty());
    let last = peers[peers.len() - 1];
    known.met(now, last, &at(1), at(1).addresses[0], false, &mut rng);
    assert_eq!(known.best(now, &key, 9), [last]);
    assert_eq!(known.best(now + UNREACHABLE, &key, 9).len(), 9, "not for ever");
}
