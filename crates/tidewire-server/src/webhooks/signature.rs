//! Signatures as [Standard Webhooks](https://www.standardwebhooks.com) has them: `v1`, HMAC-SHA256.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// What stands before the base64 of a secret.
const PREFIX: &str = "whsec_";
/// Bytes of a secret, at least and at most, as the specification says.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret, ready to sign with.
#[derive(Clone)]
pub(crate) struct SigningKey(hmac::Key);

impl SigningKey {
    /// Reads a secret: `whsec_` and 24 to 64 bytes in base64.
    ///
    /// # Errors
    /// What is wrong with it, without saying it.
    pub(crate) fn parse(secret: &str) -> Result<Self, String> {
        let base64 = secret.strip_prefix(PREFIX).ok_or_else(|| format!("does not begin with {PREFIX}"))?;
        let bytes = BASE64.decode(base64).map_err(|_| format!("is not base64 after {PREFIX}"))?;
        if !BYTES.contains(&bytes.len()) {
            return Err(format!("is {} bytes, it must be {} to {}", bytes.len(), BYTES.start(), BYTES.end()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

/// The value of `webhook-signature`: a signature with each key, so that a receiver that knows one of them is content.
pub(crate) fn sign(keys: &[SigningKey], id: &str, seconds: u64, body: &[u8]) -> String {
    let signed = keys.iter().map(|SigningKey(key)| {
        let mut context = hmac::Context::with_key(key);
        context.update(format!("{id}.{seconds}.").as_bytes());
        context.update(body);
        format!("v1,{}", BASE64.encode(context.sign()))
    });
    signed.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    #[test]
    fn signs_as_the_vector_of_the_specification() {
        let key = SigningKey::parse(SECRET).unwrap();
        assert_eq!(sign(&[key], ID, 1_614_265_330, BODY), SIGNATURE);
    }

    #[test]
    fn every_secret_signs() {
        let other = SigningKey::parse("whsec_cmVwbGFjZS1tZS1yZXBsYWNlLW1lLXJlcGxhY2UtbWU=").unwrap();
        let signature = sign(&[other, SigningKey::parse(SECRET).unwrap()], ID, 1_614_265_330, BODY);
        let (new, old) = signature.split_once(' ').unwrap();
        assert!(new.starts_with("v1,") && new != old, "{signature}");
        assert_eq!(old, SIGNATURE);
    }

    #[test]
    fn a_secret_is_neither_short_nor_shown() {
        for (secret, problem) in [
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "does not begin with whsec_"),
            ("whsec_#", "is not base64 after whsec_"),
            ("whsec_c2hvcnQ=", "is 5 bytes, it must be 24 to 64"),
        ] {
            assert_eq!(SigningKey::parse(secret).unwrap_err(), problem);
        }
        assert_eq!(format!("{:?}", SigningKey::parse(SECRET).unwrap()), "[hidden]");
    }
}
