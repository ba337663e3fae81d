//! Netlink attributes are read back as written; hostile bytes do not panic.

use super::*;

#[test]
fn a_tree_is_read_as_it_was_written() {
    let tree = Attribute::nest(
        3,
        vec![
            Attribute::text(1, "guard"),
            Attribute::number16(2, 0x1234),
            Attribute::nest(4, vec![Attribute::number64(9, 7), Attribute::number8(5, 6)]),
        ],
    );
    let mut bytes = Vec::new();
    tree.emit(&mut bytes);
    let reader = Reader::new(&bytes);
    assert!(tree.is_in(reader));
    let inner = reader.nest(3).unwrap();
    assert_eq!(inner.text(1), Some("guard"));
    assert_eq!(inner.number16(2), Some(0x1234));
    assert_eq!(inner.nest(4).unwrap().number64(9), Some(7));
    assert_eq!(inner.nest(4).unwrap().number8(5), Some(6));
    assert_eq!(inner.number32(1), None);
}

#[test]
fn what_the_kernel_lists_beside_does_not_matter_but_a_changed_value_does() {
    let mut bytes = Vec::new();
    Attribute::nest(3, vec![Attribute::number32(1, 5), Attribute::number32(2, 6)]).emit(&mut bytes);
    assert!(Attribute::nest(3, vec![Attribute::number32(2, 6)]).is_in(Reader::new(&bytes)));
    assert!(!Attribute::nest(3, vec![Attribute::number32(2, 7)]).is_in(Reader::new(&bytes)));
    assert!(!Attribute::nest(3, vec![Attribute::number32(4, 6)]).is_in(Reader::new(&bytes)));
}

#[test]
fn malformed_attributes_read_as_absent() {
    for bytes in
        [&[][..], &[1], &[4, 0, 1], &[200, 0, 1, 0, 1, 2, 3, 4], &[0, 0, 1, 0], &[3, 0, 1, 0, 9, 9, 9, 9]]
    {
        assert_eq!(Reader::new(bytes).number32(1), None, "{bytes:?}");
        assert!(Reader::new(bytes).iter().count() <= 2, "{bytes:?}");
    }
}
