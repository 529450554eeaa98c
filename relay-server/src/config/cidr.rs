//! A network of addresses, `10.0.0.0/8`, or one address, `10.0.0.1`.
//!
//! Only what `trusted_proxies` and `allow` need: reading, printing and asking whether an address lies inside. Invariant: the bits
//! beyond the prefix are zero, so two equal networks compare equal. An IPv4 address that arrives mapped into IPv6
//! counts as IPv4, since a dual-stack listener reports every IPv4 peer that way.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cidr {
    address: IpAddr,
    prefix: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CidrError {
    #[error("not an address")]
    Address,
    #[error("the prefix length is not between 0 and {0}")]
    Prefix(u8),
    /// Bits beyond the prefix are set: a slip as often as a shorthand, so it is refused.
    #[error("bits beyond /{0} are set")]
    HostBits(u8),
}

impl Cidr {
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix) == bits(self.address)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address in the upper bits, so that one mask serves both kinds.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn masked(address: IpAddr, prefix: u8) -> u128 {
    let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
    bits(address) & mask
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| CidrError::Address)?;
        let width = width(address);
        let prefix = match prefix {
            None => width,
            Some(digits) => {
                let prefix = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
                prefix.filter(|&prefix| prefix <= width).ok_or(CidrError::Prefix(width))?
            }
        };
        if masked(address, prefix) != bits(address) {
            return Err(CidrError::HostBits(prefix));
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_inside_or_not() {
        for (network, address, inside) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "10.0.0.1", false),
        ] {
            let network: Cidr = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), inside, "{address} in {network}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for (text, why) in [
            ("", CidrError::Address),
            ("10.0.0/8", CidrError::Address),
            ("10.0.0.0/33", CidrError::Prefix(32)),
            ("10.0.0.0/", CidrError::Prefix(32)),
            ("10.0.0.0/+8", CidrError::Prefix(32)),
            ("::/129", CidrError::Prefix(128)),
            ("10.0.0.1/8", CidrError::HostBits(8)),
        ] {
            assert_eq!(text.parse::<Cidr>(), Err(why), "{text:?}");
        }
    }

    #[test]
    fn it_prints_as_it_is_read() {
        for text in ["10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0"] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), text);
        }
        assert_eq!("10.0.0.1".parse::<Cidr>().unwrap().to_string(), "10.0.0.1/32");
    }
}
