//! The firewall's settings as operators write them.

use super::*;

#[test]
fn kinds_are_read_as_they_are_written() {
    for name in ["auto", "nftables", "iptables", "dry-run"] {
        assert_eq!(name.parse::<Kind>().unwrap().to_string(), name);
    }
    for name in ["", "nft", "AUTO", "dry_run", "none"] {
        assert!(name.parse::<Kind>().is_err(), "{name}");
    }
}

#[test]
fn chains_of_both_worlds_are_read() {
    let nftables = AcceptIn::Nftables { family: Family::Inet, table: "filter".into(), chain: "input".into() };
    assert_eq!("inet/filter/input".parse(), Ok(nftables));
    let iptables = AcceptIn::Iptables { table: "filter", chain: "INPUT".into() };
    assert_eq!("INPUT".parse(), Ok(iptables.clone()));
    assert_eq!("filter/INPUT".parse(), Ok(iptables));
}

#[test]
fn what_could_be_an_option_or_another_argument_is_no_chain() {
    for text in [
        "",
        "-F",
        "a b",
        "filter/-X",
        "nat/INPUT",
        "arp/filter/input",
        "inet/filter/",
        "a/b/c/d",
        "x\0",
        "a'b",
        "chain-name-longer-than-28-bytes",
    ] {
        assert!(text.parse::<AcceptIn>().is_err(), "{text}");
    }
}

#[test]
fn a_mark_is_one_bit() {
    assert_eq!(MarkBit::new(0x20).map(MarkBit::bit), Ok(0x20));
    for bit in [0, 3, u32::MAX] {
        assert!(MarkBit::new(bit).is_err(), "{bit}");
    }
}

#[test]
fn a_mark_is_read_as_it_is_written() {
    for text in ["0x100000", "1048576"] {
        assert_eq!(text.parse(), Ok(MarkBit::DEFAULT), "{text}");
    }
    assert_eq!(MarkBit::DEFAULT.to_string(), "0x100000");
    for text in ["", "0", "3", "0x", "-1", "0x100000000", "mark"] {
        assert!(text.parse::<MarkBit>().is_err(), "{text}");
    }
}
