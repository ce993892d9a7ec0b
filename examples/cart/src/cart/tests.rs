use proptest::prelude::*;

use super::*;

fn purchase(mark: u64) -> Purchase {
    Purchase { customer: "1".to_owned(), item: format!("item {}", mark % 4), mark }
}

/// A cart after these changes: `true` adds the purchase with this mark, `false` removes it.
fn cart<C: Cart>(changes: &[(bool, u64)]) -> C {
    let mut cart = C::default();
    for &(adds, mark) in changes {
        if adds { cart.add(&purchase(mark)) } else { cart.remove(&purchase(mark)) }
    }
    cart
}

fn joined<C: Cart + Clone>(a: &C, b: &C) -> C {
    let mut joined = a.clone();
    joined.merge(b);
    joined
}

fn merge_is_a_join<C: Cart + Clone + PartialEq + std::fmt::Debug>(carts: [C; 3]) -> Result<(), TestCaseError> {
    let [a, b, c] = &carts;
    prop_assert_eq!(joined(a, b), joined(b, a));
    prop_assert_eq!(joined(&joined(a, b), c), joined(a, &joined(b, c)));
    prop_assert_eq!(&joined(a, a), a);
    prop_assert_eq!(joined(&joined(a, b), b), joined(a, b));
    for cart in &carts {
        prop_assert_eq!(&C::decode(cart.encode().as_bytes()), cart);
    }
    Ok(())
}

fn changes() -> impl Strategy<Value = Vec<(bool, u64)>> {
    prop::collection::vec((prop::bool::weighted(0.7), 0u64..12), 0..12)
}

/// Lines that look like those of a cart, and others.
fn lines() -> impl Strategy<Value = String> {
    prop::collection::vec("[-+]?[0-9]{0,2}[ a-c]{0,3}", 0..8).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn plain_carts_merge_in_any_order(a in changes(), b in changes(), c in changes()) {
        merge_is_a_join([cart::<PlainCart>(&a), cart(&b), cart(&c)])?;
    }

    #[test]
    fn marked_carts_merge_in_any_order(a in changes(), b in changes(), c in changes()) {
        merge_is_a_join([cart::<MarkedCart>(&a), cart(&b), cart(&c)])?;
    }

    #[test]
    fn carts_of_any_bytes_merge_in_any_order(a in lines(), b in lines(), c in lines()) {
        merge_is_a_join([a.as_bytes(), b.as_bytes(), c.as_bytes()].map(MarkedCart::decode))?;
        merge_is_a_join([a.as_bytes(), b.as_bytes(), c.as_bytes()].map(PlainCart::decode))?;
    }

    /// It holds whichever sibling removed the item, and whatever is merged afterwards.
    #[test]
    fn a_marked_cart_never_gets_a_removed_item_back(
        before in changes(), after in changes(), others in prop::collection::vec(changes(), 0..4), mark in 20u64..24,
    ) {
        let mut with_item = before.clone();
        with_item.push((true, mark));
        let mut merged = cart::<MarkedCart>(&with_item);
        merged.remove(&purchase(mark));
        for other in others {
            // Each of the others had seen the item in the cart, and added it again under the same mark.
            let mut other = cart::<MarkedCart>(&[with_item.clone(), other].concat());
            other.add(&purchase(mark));
            merged.merge(&other);
        }
        after.into_iter().for_each(|(_, mark)| merged.add(&purchase(mark)));
        let is_back = merged.encode().contains(&format!("+{mark} "));
        prop_assert!(!is_back);
    }

    /// An add that only one of two carts has seen is in the merged cart.
    #[test]
    fn no_cart_loses_an_add(a in changes(), b in changes(), mark in 20u64..24) {
        fn check<C: Cart + Clone>(a: &[(bool, u64)], b: &[(bool, u64)], mark: u64) -> bool {
            let mut with_item = cart::<C>(a);
            with_item.add(&purchase(mark));
            joined(&cart(b), &with_item).items().contains(&purchase(mark).item)
        }
        prop_assert!(check::<PlainCart>(&a, &b, mark));
        prop_assert!(check::<MarkedCart>(&a, &b, mark));
    }
}

#[test]
fn a_deleted_item_resurfaces_in_a_plain_cart_alone() {
    fn siblings<C: Cart + Clone>() -> C {
        let shown: C = cart(&[(true, 1)]);
        let (mut one, mut other) = (shown.clone(), shown);
        one.remove(&purchase(1));
        other.add(&purchase(2));
        joined(&one, &other)
    }
    let (kept, deleted) = (purchase(2).item, purchase(1).item);
    assert_eq!(siblings::<PlainCart>().items(), [deleted, kept.clone()].into());
    assert_eq!(siblings::<MarkedCart>().items(), [kept].into());
}

#[test]
fn the_same_thing_bought_again_stays() {
    // Marks 1 and 5 belong to the same item.
    let mut cart: MarkedCart = cart(&[(true, 1), (false, 1), (true, 5)]);
    assert_eq!(cart.items(), [purchase(1).item].into());
    cart.add(&purchase(1));
    cart.remove(&purchase(5));
    assert!(cart.items().is_empty(), "a late retry of the first add adds nothing");
}
