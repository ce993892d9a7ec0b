use proptest::prelude::*;

use super::*;

const LIMITS: RequestLimits = RequestLimits { argument_bytes: 100, request_bytes: 300 };

/// What is parsed of `input` when it arrives in pieces of these lengths, in turn.
fn parsed(input: &[u8], pieces: &[usize]) -> (Vec<Parsed>, Option<String>) {
    let (mut parser, mut buffer, mut all) = (Parser::new(LIMITS), BytesMut::new(), Vec::new());
    let (mut rest, mut lengths) = (input, pieces.iter().cycle());
    loop {
        loop {
            match parser.next(&mut buffer) {
                Ok(Some(one)) => all.push(one),
                Ok(None) => break,
                Err(NoRequest(why)) => return (all, Some(why)),
            }
        }
        assert!(buffer.len() <= LINE_BYTES_MAX + 1 + input.len().min(1 << 20), "what is refused is not kept");
        if rest.is_empty() {
            assert_eq!(parser.is_within(&buffer), parser.state != State::Begin || !buffer.is_empty());
            return (all, None);
        }
        let length = lengths.next().map_or(rest.len(), |&length| length.clamp(1, rest.len()));
        buffer.extend_from_slice(&rest[..length]);
        rest = &rest[length..];
    }
}

fn commands(input: &[u8]) -> (Vec<Vec<Vec<u8>>>, Option<String>) {
    let (all, error) = parsed(input, &[usize::MAX]);
    let arguments = |parsed: Parsed| match parsed {
        Parsed::Command(command) => command.from(0).map(<[u8]>::to_vec).collect(),
        Parsed::TooLarge(why) => vec![why.into_bytes()],
    };
    (all.into_iter().map(arguments).collect(), error)
}

fn words_of(line: &str) -> Vec<Vec<u8>> {
    line.split('|').map(|word| word.as_bytes().to_vec()).collect()
}

#[test]
fn arrays_and_inline_commands_are_requests() {
    let input = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\na\r\nb\r\nPING\r\n\r\n  get   k \n*0\r\n*-1\r\n*1\r\n$0\r\n\r\n";
    let expected = vec![words_of("SET|k|a\r\nb"), words_of("PING"), words_of("get|k"), words_of("")];
    assert_eq!(commands(input), (expected, None));
}

#[test]
fn inline_commands_have_quotes() {
    for (line, expected) in
        [(r#"a "b c" 'd e'"#, "a|b c|d e"), (r#""\x41\n\"\q" '\'\n'"#, "A\n\"q|'\\n"), (r#"a"b""#, "ab"), (r#""""#, "")]
    {
        assert_eq!(commands(format!("{line}\r\n").as_bytes()), (vec![words_of(expected)], None), "{line}");
    }
    for line in [r#""a"#, "'a", r#""a"b"#, "'a'b", r#""a\""#] {
        let why = "ERR Protocol error: unbalanced quotes in request".to_owned();
        assert_eq!(commands(format!("{line}\r\n").as_bytes()), (vec![], Some(why)), "{line}");
    }
}

#[test]
fn errors_are_those_of_redis() {
    let long = |start: &str| [start.as_bytes(), &[b'1'; LINE_BYTES_MAX + 1][..]].concat();
    for (input, why) in [
        (&b"*a\r\n"[..], "invalid multibulk length"),
        (b"*1048577\r\n", "invalid multibulk length"),
        (b"*99999999999999999999\r\n", "invalid multibulk length"),
        (b"*01\r\n", "invalid multibulk length"),
        (b"*1\r\nPING\r\n", "expected '$', got 'P'"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "invalid bulk length"),
        (b"*1\r\n$x\r\n", "invalid bulk length"),
        (&long("*"), "too big mbulk count string"),
        (&long("*1\r\n$"), "too big bulk count string"),
        (&long("PING "), "too big inline request"),
    ] {
        assert_eq!(commands(input), (vec![], Some(format!("ERR Protocol error: {why}"))));
    }
}

#[test]
fn a_large_request_is_read_to_its_end_and_refused() {
    let large = [b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$101\r\n", &[b'v'; 101][..], b"\r\nPING\r\n"].concat();
    let many = [b"*9\r\n".to_vec(), [b"$50\r\n", &[b'v'; 50][..], b"\r\n"].concat().repeat(9), b"PING\r\n".to_vec()];
    for (input, why) in [(large, "101 bytes, and 100 is the most"), (many.concat(), "more than 300 bytes")] {
        for piece in [1, 2, 3, 7, 100, 10_000] {
            let (all, error) = parsed(&input, &[piece]);
            let [Parsed::TooLarge(refused), Parsed::Command(next)] = &all[..] else { panic!("{all:?}") };
            assert!(refused.contains(why) && error.is_none(), "{refused}");
            assert_eq!(next.get(0), b"PING");
        }
    }
}

#[test]
fn nothing_is_kept_for_what_is_only_announced() {
    let (mut parser, mut buffer) = (Parser::new(LIMITS), BytesMut::from(&b"*1048576\r\n$536870912\r\n"[..]));
    assert_eq!(parser.next(&mut buffer), Ok(None));
    for _ in 0..100 {
        buffer.extend_from_slice(&[0; 10_000]);
        assert_eq!(parser.next(&mut buffer), Ok(None));
        assert!(buffer.is_empty());
    }
    assert!(parser.is_within(&buffer) && !parser.arguments.spilled());
}

#[test]
fn numbers_are_written_in_one_way() {
    for (text, number) in [("0", 0), ("-1", -1), ("9223372036854775807", i64::MAX), ("-9223372036854775808", i64::MIN)]
    {
        assert_eq!(integer(text.as_bytes()), Some(number));
    }
    for text in ["", "-", "+1", "01", "-0", " 1", "1 ", "1.0", "9223372036854775808", "99999999999999999999", "a"] {
        assert_eq!(integer(text.as_bytes()), None, "{text}");
    }
}

proptest! {
    #[test]
    fn requests_are_the_same_in_any_pieces(
        requests in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 1..5), 0..6),
        pieces in prop::collection::vec(1..40_usize, 1..6),
    ) {
        let mut input = Vec::new();
        for request in &requests {
            input.extend_from_slice(format!("*{}\r\n", request.len()).as_bytes());
            for argument in request {
                input.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
                input.extend_from_slice(argument);
                input.extend_from_slice(b"\r\n");
            }
        }
        let (all, error) = parsed(&input, &pieces);
        prop_assert_eq!(error, None);
        prop_assert_eq!(all.len(), requests.len());
        for (one, request) in all.iter().zip(&requests) {
            match one {
                Parsed::Command(command) => prop_assert!(command.from(0).eq(request.iter().map(|argument| &argument[..]))),
                Parsed::TooLarge(_) => {
                    let sum: usize = request.iter().map(Vec::len).sum();
                    prop_assert!(sum > 200 || request.iter().any(|argument| argument.len() > 100));
                }
            }
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(
        input in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            prop::collection::vec(prop::sample::select(b"*$-019\r\n\"'\\x aP".to_vec()), 0..60),
        ],
        pieces in prop::collection::vec(1..9_usize, 1..4),
    ) {
        prop_assert_eq!(parsed(&input, &pieces), parsed(&input, &[usize::MAX]));
    }
}
