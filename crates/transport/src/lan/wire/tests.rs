use super::*;
use crate::interfaces::Interface;

const INSTANCE: Instance = Instance([7; 10]);

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn network() -> Network {
    Network::new([
        Interface::new(2, ip("10.0.0.1"), 24),
        Interface::new(2, ip("fe80::1"), 64),
        Interface::new(2, ip("fd00::1"), 64),
    ])
}

fn announcement(ips: &[&str]) -> Announcement {
    let ips = ips.iter().map(|text| ip(text)).collect();
    Announcement::new(INSTANCE, Tag::of("test"), ips, 5483)
}

fn read(announcement: &Announcement, lasts: bool) -> ServiceIn {
    let packet = announcement.encode(lasts).expect("can be written");
    assert!(packet.len() < 600, "{} bytes", packet.len());
    match PacketIn::decode(&packet) {
        Ok(PacketIn::Services(mut all)) if all.len() == 1 => all.remove(0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn announcements_come_back_as_they_were() {
    let mut sent = announcement(&["10.0.0.2", "fd00::2"]);
    for machine in [None, Some(MachineId::new([9; 32]))] {
        sent.machine = machine;
        let find = read(&sent, true).verify(sent.tag, &network()).expect("holds");
        assert_eq!((find.instance, find.machine, find.lifetime), (INSTANCE, machine, LIFETIME));
        let at: Vec<String> = find.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(at, ["10.0.0.2:5483", "[fd00::2]:5483"]);
        assert!(!read(&sent, true).leaves() && read(&sent, false).leaves());
    }
}

#[test]
fn only_places_on_the_link_count() {
    let tag = Tag::of("test");
    let verify = |ips: &[&str], port: u16| {
        let announcement = Announcement { port, ..announcement(ips) };
        read(&announcement, true).verify(tag, &network())
    };
    let elsewhere = [
        "10.0.1.2",
        "127.0.0.1",
        "192.0.2.1",
        "169.254.169.254",
        "224.0.0.251",
        "0.0.0.0",
        "::1",
        "fe80::2",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "255.255.255.255",
    ];
    for bad in elsewhere {
        assert_eq!(verify(&[bad], 5483), Err(ServiceError::Addresses), "{bad}");
        let find = verify(&[bad, "10.0.0.2"], 5483).expect("one that counts");
        assert_eq!(find.addresses, ["10.0.0.2:5483".parse().expect("an address")], "{bad}");
    }
    for port in [0, 53, 1023] {
        assert_eq!(verify(&["10.0.0.2"], port), Err(ServiceError::Addresses), "{port}");
    }
    let other = read(&announcement(&["10.0.0.2"]), true).verify(Tag::of("other"), &network());
    assert_eq!(other, Err(ServiceError::Network));
}

#[test]
fn questions_name_who_is_known() {
    let known: Vec<Instance> = (0..20).map(|n| Instance([n; 10])).collect();
    let packet = question(known.iter().copied()).expect("can be written");
    let Ok(PacketIn::Question(named)) = PacketIn::decode(&packet) else { panic!("{packet:?}") };
    assert_eq!(named, known[..MAX_SERVICES]);
    // Other services' packets are nothing.
    let mut other = Packet::new_query(0);
    let name = Name::new_unchecked("_http._tcp.local");
    let ask = Question::new(name, QTYPE::TYPE(TYPE::PTR), QCLASS::CLASS(CLASS::IN), false);
    other.questions.push(ask);
    let other = other.build_bytes_vec().expect("can be written");
    assert_eq!(PacketIn::decode(&other), Ok(PacketIn::Other));
    assert_eq!(INSTANCE.to_string().len(), 16);
}

#[test]
fn what_is_no_packet_is_refused() {
    let packet = announcement(&["10.0.0.2"]).encode(true).expect("can be written");
    for len in 0..packet.len() {
        // Cut short it is refused, or has less in it.
        if let Ok(PacketIn::Services(all)) = PacketIn::decode(&packet[..len]) {
            assert!(all.len() <= 1);
        }
    }
    assert!(PacketIn::decode(&[0; MAX_PACKET + 1]).is_err());
    // More is announced than there is: no room is made for it.
    let mut greedy = [0xff; HEADER + 40];
    greedy[2..4].copy_from_slice(&[0x84, 0]);
    assert_eq!(PacketIn::decode(&greedy), Err(DecodeError::Field("counts")));
}

proptest::proptest! {
    #[test]
    fn no_packet_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = PacketIn::decode(&bytes);
    }

    #[test]
    fn no_damaged_announcement_panics(at in 0_usize..200, to: u8, second in 0_usize..200) {
        let packet = announcement(&["10.0.0.2", "fd00::2"]).encode(true).expect("can be written");
        let mut packet = packet.to_vec();
        let len = packet.len();
        packet[at % len] = to;
        packet[second % len] = to ^ 0xc0;
        if let Ok(PacketIn::Services(all)) = PacketIn::decode(&packet) {
            for service in all {
                if let Ok(find) = service.verify(Tag::of("test"), &network()) {
                    proptest::prop_assert!(find.addresses.iter().all(|a| network().is_on_link(a.ip())));
                }
            }
        }
    }
}
