//! Ranges of addresses, as settings write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bits in front of the IPv4 address in an IPv6 address that maps one.
const MAPPED_BITS: u8 = 96;

/// Addresses that begin with the same bits: `10.0.0.0/8`, `2001:db8::/32`, or one address alone. An IPv4 address that is
/// written as an IPv6 one (`::ffff:10.0.0.1`) is that IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether it has `address`, which is not an IPv4 address written as an IPv6 one.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        starting(address, self.bits) == Some(self.first) && address.is_ipv4() == self.first.is_ipv4()
    }

    /// Whether it has every address of its family.
    pub(crate) fn is_everything(&self) -> bool {
        self.bits == 0
    }
}

/// The first address of those that begin with the same `bits` bits; `None` if an address has fewer.
fn starting(address: IpAddr, bits: u8) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => {
            let behind = Ipv4Addr::BITS.checked_sub(bits.into())?;
            let mask = u32::MAX.checked_shl(behind).unwrap_or(0);
            Some(Ipv4Addr::from_bits(address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let behind = Ipv6Addr::BITS.checked_sub(bits.into())?;
            let mask = u128::MAX.checked_shl(behind).unwrap_or(0);
            Some(Ipv6Addr::from_bits(address.to_bits() & mask).into())
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let form = || {
            format!("{text:?} is neither an address nor a range such as \"10.0.0.0/8\" or \"2001:db8::/32\"")
        };
        let address: IpAddr = address.parse().map_err(|_| form())?;
        let bits_max: u8 = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            // Neither a sign nor a space is a part of it.
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse().map_err(|_| form())?
            }
            Some(_) => return Err(form()),
            None => bits_max,
        };
        let (address, bits) = match address.to_canonical() {
            canonical @ IpAddr::V4(_) if address.is_ipv6() && bits >= MAPPED_BITS => {
                (canonical, bits - MAPPED_BITS)
            }
            _ => (address, bits),
        };
        let first =
            starting(address, bits).ok_or_else(|| format!("{text:?} is longer than {bits_max} bits"))?;
        if first != address {
            return Err(format!("{text:?} has bits behind its first {bits}; write \"{first}/{bits}\""));
        }
        Ok(Self { first, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.bits) {
            (IpAddr::V4(_), 32) | (IpAddr::V6(_), 128) => self.first.fmt(f),
            (first, bits) => write!(f, "{first}/{bits}"),
        }
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn contains(network: &str, address: &str) -> bool {
        network.parse::<Network>().unwrap().contains(address.parse::<IpAddr>().unwrap().to_canonical())
    }

    #[test]
    fn a_range_has_the_addresses_that_begin_as_it_does() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", ["10.0.0.0", "10.255.255.255"], ["9.255.255.255", "11.0.0.0"]),
            ("192.0.2.7", ["192.0.2.7", "::ffff:192.0.2.7"], ["192.0.2.6", "192.0.2.8"]),
            ("172.16.0.0/12", ["172.16.0.1", "172.31.255.255"], ["172.15.255.255", "172.32.0.0"]),
            ("192.0.2.2/31", ["192.0.2.2", "192.0.2.3"], ["192.0.2.1", "192.0.2.4"]),
            ("0.0.0.0/0", ["0.0.0.0", "255.255.255.255"], ["::", "2001:db8::1"]),
            ("::/0", ["::", "2001:db8::1"], ["0.0.0.0", "::ffff:1.2.3.4"]),
            ("2001:db8::/33", ["2001:db8::1", "2001:db8:7fff::"], ["2001:db8:8000::", "2001:db7::"]),
            ("::1", ["::1", "::1"], ["::2", "127.0.0.1"]),
            ("::ffff:10.0.0.0/104", ["10.1.2.3", "::ffff:10.9.9.9"], ["11.0.0.1", "::a00:1"]),
        ] {
            for address in inside {
                assert!(contains(network, address), "{address} is in {network}");
            }
            for address in outside {
                assert!(!contains(network, address), "{address} is not in {network}");
            }
        }
    }

    #[test]
    fn what_is_no_range_is_told_with_what_to_write() {
        for (text, problem) in [
            ("", "neither an address nor a range"),
            ("localhost", "neither an address nor a range"),
            ("10.0.0.0/", "neither an address nor a range"),
            ("10.0.0.0/+8", "neither an address nor a range"),
            ("10.0.0.0/300", "neither an address nor a range"),
            ("10.0.0/8", "neither an address nor a range"),
            ("10.0.0.0/33", "longer than 32 bits"),
            ("::/129", "longer than 128 bits"),
            ("10.1.2.3/8", "write \"10.0.0.0/8\""),
            ("2001:db8::1/32", "write \"2001:db8::/32\""),
        ] {
            let error = text.parse::<Network>().unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn a_range_is_written_as_it_is_read() {
        for text in ["10.0.0.0/8", "192.0.2.7", "::1", "2001:db8::/32", "0.0.0.0/0"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        assert_eq!("::ffff:10.0.0.0/104".parse::<Network>().unwrap().to_string(), "10.0.0.0/8");
    }
}
