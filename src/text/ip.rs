//! IP addresses as text. The text stays on the stack, because each request writes two.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Deref;

/// An IP address as text: `203.0.113.7`, `2001:db8::7`.
pub(crate) struct IpText {
    bytes: [u8; MAX],
    length: usize,
}

/// Longest text: `0000:0000:0000:0000:0000:ffff:255.255.255.255` is never written, but would fit.
const MAX: usize = 45;

impl IpText {
    /// Writes an address.
    pub(crate) fn of(ip: IpAddr) -> Self {
        let mut text = Self { bytes: [0; MAX], length: 0 };
        match ip {
            IpAddr::V4(v4) => text.push_v4(v4),
            // The text fits, so nothing is cut.
            IpAddr::V6(v6) => _ = write!(text, "{v6}"),
        }
        text
    }

    fn push_v4(&mut self, v4: Ipv4Addr) {
        for (index, octet) in v4.octets().into_iter().enumerate() {
            if index > 0 {
                self.push(b'.');
            }
            if octet >= 100 {
                self.push(b'0' + octet / 100);
            }
            if octet >= 10 {
                self.push(b'0' + octet / 10 % 10);
            }
            self.push(b'0' + octet % 10);
        }
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }
}

impl std::fmt::Write for IpText {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        let rest = self.bytes.get_mut(self.length..self.length + part.len()).ok_or(std::fmt::Error)?;
        rest.copy_from_slice(part.as_bytes());
        self.length += part.len();
        Ok(())
    }
}

impl Deref for IpText {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).expect("only whole texts were written")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_is_written_as_std_does() {
        let octets = [0, 1, 9, 10, 99, 100, 101, 199, 200, 255];
        for a in octets {
            for b in octets {
                let ip = IpAddr::from([a, b, b, a]);
                assert_eq!(*IpText::of(ip), ip.to_string());
            }
        }
        let longest = [0xffff_u16; 8];
        let mapped = Ipv4Addr::BROADCAST.to_ipv6_mapped().segments();
        for segments in [[0; 8], longest, mapped, [0x2001, 0xdb8, 0, 0, 0, 0, 0, 7]] {
            let ip = IpAddr::from(segments);
            assert_eq!(*IpText::of(ip), ip.to_string());
        }
    }
}
