use super::*;

fn read() -> Read {
    let end = |addr: &str| Endpoint {
        addr: addr.to_owned(),
        port: 7,
    };
    Read {
        at: End::Client,
        netns: 1,
        local: end("10.78.0.1"),
        remote: end("10.77.0.2"),
        account: Path {
            bytes_sent: 1_100,
            bytes_retransmitted: 100,
            bytes_acked: 1_001,
            bytes_received: 500,
            retransmissions: 2,
            segments_sent: 20,
            segments_received: 10,
            rtt_us: 40,
            rtt_min_us: 30,
        },
    }
}

#[test]
fn a_ledger_is_that_of_just_before_and_each_field_that_differs_is_named() {
    let right = LedgerLine {
        bytes_sent: 1_000,
        bytes_retransmitted: 100,
        bytes_received: 500,
        retransmissions: 2,
        segments_sent: 22,
        segments_received: 11,
        rtt_ns: Some(99_000),
        rtt_min_ns: Some(30_000),
    };
    type Spoil = fn(&mut LedgerLine);
    let rows: [(&str, Spoil); 10] = [
        ("bytes_sent", |it| it.bytes_sent += 1),
        ("bytes_retransmitted", |it| it.bytes_retransmitted = 0),
        ("bytes_received", |it| it.bytes_received += 1),
        ("bytes_received", |it| it.bytes_received -= 2),
        ("retransmissions", |it| it.retransmissions -= 1),
        ("segments_sent", |it| it.segments_sent = 19),
        ("segments_sent", |it| it.segments_sent = 29),
        ("segments_received", |it| it.segments_received = 9),
        ("rtt_min", |it| it.rtt_min_ns = None),
        ("rtt_min", |it| it.rtt_min_ns = Some(31_000)),
    ];
    assert_eq!(read().unlike(&right), [""; 0]);
    for (field, spoil) in rows {
        let mut ledger = right.clone();
        spoil(&mut ledger);
        let [wrong] = &read().unlike(&ledger)[..] else {
            panic!("{field}");
        };
        assert!(wrong.contains(field), "{wrong}");
    }
}

#[test]
fn what_ss_prints_is_read_with_devices_and_without_what_is_zero() {
    let printed = "ESTAB 0      0         10.78.0.1%lab1:7     10.77.0.2:7    \n\
        \t cubic rto:204 rtt:0.04/0.01 bytes_sent:1100 bytes_retrans:100 bytes_acked:1001 \
        bytes_received:500 segs_out:20 segs_in:10 retrans:0/2 minrtt:0.03\n\
        ESTAB 0      0      [fd78::1]%lab1:9 [fd77::2]:80\n\t cubic rtt:1.5/2 segs_in:3\n";
    let all = parsed(printed);
    let of = |local: &str, remote: &str| all.get(&[local.to_owned(), remote.to_owned()]);
    assert_eq!(of("10.78.0.1:7", "10.77.0.2:7"), Some(&read().account));
    let other = of("[fd78::1]:9", "[fd77::2]:80").unwrap();
    assert_eq!(
        (other.rtt_us, other.segments_received, other.bytes_sent),
        (1_500, 3, 0)
    );
    let end = Endpoint {
        addr: "fd77::2".to_owned(),
        port: 80,
    };
    assert_eq!(shown(&end), "[fd77::2]:80");
}
