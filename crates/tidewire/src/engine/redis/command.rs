//! Commands as they are written to a link.

use bytes::BytesMut;

/// A command that can be written any number of times: a request that was not sent is sent again on the next link.
pub(super) trait Encode: Sync {
    /// At least as many bytes as [`Encode::encode`] writes.
    fn wire_bytes_max(&self) -> usize;

    /// Writes the whole command.
    fn encode(&self, out: &mut BytesMut);

    /// Replies that come before the one that counts.
    fn extra_replies(&self) -> usize {
        0
    }
}

/// A command for a node of a cluster that takes over its slot just now: `ASKING` holds for the next command only, so
/// both are written at once.
pub(super) struct Asking<'a, C: ?Sized>(pub(super) &'a C);

impl<C: Encode + ?Sized> Encode for Asking<'_, C> {
    fn wire_bytes_max(&self) -> usize {
        ASKING.len() + self.0.wire_bytes_max()
    }

    fn encode(&self, out: &mut BytesMut) {
        out.extend_from_slice(ASKING);
        self.0.encode(out);
    }

    fn extra_replies(&self) -> usize {
        1 + self.0.extra_replies()
    }
}

const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";

/// A short command whose arguments lie where they are: nothing is copied before the link's buffer.
impl Encode for [&[u8]] {
    fn wire_bytes_max(&self) -> usize {
        HEADER_BYTES_MAX + self.iter().map(|arg| arg.len() + HEADER_BYTES_MAX + 2).sum::<usize>()
    }

    fn encode(&self, out: &mut BytesMut) {
        write_header(out, b'*', self.len());
        for arg in self {
            write_argument(out, arg);
        }
    }
}

impl<const N: usize> Encode for [&[u8]; N] {
    fn wire_bytes_max(&self) -> usize {
        self.as_slice().wire_bytes_max()
    }

    fn encode(&self, out: &mut BytesMut) {
        self.as_slice().encode(out);
    }
}

/// A command that is put together argument by argument.
#[derive(Default)]
pub(super) struct Command {
    arguments: usize,
    body: BytesMut,
}

impl Command {
    /// A command with its name as the first argument.
    pub(super) fn new(name: &str) -> Self {
        Self::with_capacity(name, 128)
    }

    /// A command whose arguments are expected to take `bytes`.
    pub(super) fn with_capacity(name: &str, bytes: usize) -> Self {
        let mut command = Self { arguments: 0, body: BytesMut::with_capacity(bytes) };
        command.push(name.as_bytes());
        command
    }

    /// Adds one argument.
    pub(super) fn push(&mut self, arg: &[u8]) {
        self.body.reserve(arg.len() + HEADER_BYTES_MAX + 2);
        write_argument(&mut self.body, arg);
        self.arguments += 1;
    }

    /// Adds one argument that is made of two parts.
    pub(super) fn push_parts(&mut self, head: &[u8], tail: &[u8]) {
        self.body.reserve(head.len() + tail.len() + HEADER_BYTES_MAX + 2);
        write_header(&mut self.body, b'$', head.len() + tail.len());
        self.body.extend_from_slice(head);
        self.body.extend_from_slice(tail);
        self.body.extend_from_slice(b"\r\n");
        self.arguments += 1;
    }

    /// Adds one argument, for chaining.
    pub(super) fn arg(mut self, arg: impl AsRef<[u8]>) -> Self {
        self.push(arg.as_ref());
        self
    }

    /// Adds a number.
    pub(super) fn push_int(&mut self, number: i64) {
        let mut text = [0; HEADER_BYTES_MAX];
        // Without the kind and the end.
        let from = write_decimal(number, b'$', &mut text);
        let digits = text.get(from + 1..HEADER_BYTES_MAX - 2).unwrap_or_default();
        self.push(digits);
    }

    /// Adds a number, for chaining.
    pub(super) fn int(mut self, number: i64) -> Self {
        self.push_int(number);
        self
    }
}

impl Encode for Command {
    fn wire_bytes_max(&self) -> usize {
        HEADER_BYTES_MAX + self.body.len()
    }

    fn encode(&self, out: &mut BytesMut) {
        write_header(out, b'*', self.arguments);
        out.extend_from_slice(&self.body);
    }
}

/// A kind byte, twenty digits, CR and LF.
pub(super) const HEADER_BYTES_MAX: usize = 23;

pub(super) fn write_argument(out: &mut BytesMut, arg: &[u8]) {
    write_header(out, b'$', arg.len());
    out.extend_from_slice(arg);
    out.extend_from_slice(b"\r\n");
}

pub(super) fn write_header(out: &mut BytesMut, kind: u8, number: usize) {
    let mut text = [0; HEADER_BYTES_MAX];
    let from = write_decimal(i64::try_from(number).unwrap_or(i64::MAX), kind, &mut text);
    out.extend_from_slice(text.get(from..).unwrap_or_default());
}

/// Writes a kind, the decimal digits of a number, CR and LF to the end of `text`, and gives where they start;
/// formatting machinery costs more than the rest of a short command.
fn write_decimal(number: i64, kind: u8, text: &mut [u8; HEADER_BYTES_MAX]) -> usize {
    let [head @ .., cr, lf] = text;
    (*cr, *lf) = (b'\r', b'\n');
    let mut from = head.len();
    let mut rest = number.unsigned_abs();
    let mut places = head.iter_mut().rev();
    for place in places.by_ref() {
        *place = b'0' + (rest % 10) as u8;
        from -= 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    // Nineteen digits are the most that an i64 has, so sign and kind have their places.
    let sign = (number < 0).then_some(b'-');
    for (place, byte) in places.zip(sign.into_iter().chain([kind])) {
        *place = byte;
        from -= 1;
    }
    from
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::redis::resp::{Decoder, Value};

    fn decoded(command: &(impl Encode + ?Sized)) -> Vec<Vec<u8>> {
        let mut decoder = Decoder::default();
        command.encode(decoder.buffer());
        assert!(decoder.buffer().len() <= command.wire_bytes_max());
        let mut values = Vec::new();
        decoder.decode(&mut values).unwrap();
        assert_eq!(values.len(), 1);
        let arguments = values.pop().and_then(Value::into_array).unwrap();
        arguments.into_iter().map(|arg| arg.into_bytes().unwrap().to_vec()).collect()
    }

    proptest! {
        #[test]
        fn a_command_is_an_array_of_its_arguments(args in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..9)) {
            let slices: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(&decoded(slices.as_slice()), &args);
            let built = slices.iter().fold(Command::new("X"), |command, arg| command.arg(arg));
            prop_assert_eq!(&decoded(&built)[1..], &args[..]);
        }

        #[test]
        fn numbers_are_written_in_decimal(number in any::<i64>()) {
            let mut text = [0; HEADER_BYTES_MAX];
            let from = write_decimal(number, b':', &mut text);
            let expected = format!(":{number}\r\n");
            prop_assert_eq!(&text[from..], expected.as_bytes());
        }
    }

    #[test]
    fn the_smallest_number_fits() {
        assert_eq!(
            decoded(&Command::new("X").int(i64::MIN).int(0))[1..],
            [&b"-9223372036854775808"[..], b"0"]
        );
    }
}
