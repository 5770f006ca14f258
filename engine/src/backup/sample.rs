//! Tells data that is not worth compressing from a small sample, so that no time is lost on media and archives.

use crate::format::block::BlockCodec;

const SAMPLE_LEN: usize = 8 << 10;
/// A sample that shrinks by less than one part in this many is taken as incompressible.
const GAIN_MIN: usize = 50;

/// Whether compressing `bytes` would gain next to nothing: judged by samples from three places. Data too short to sample
/// is compressed anyway: that costs little.
pub(super) fn is_incompressible(bytes: &[u8], codec: &mut BlockCodec, probe: &mut Vec<u8>) -> bool {
    if bytes.len() < 4 * SAMPLE_LEN {
        return false;
    }
    let places = [0, (bytes.len() - SAMPLE_LEN) / 2, bytes.len() - SAMPLE_LEN];
    places.into_iter().all(|at| {
        codec.compress(&bytes[at..at + SAMPLE_LEN], 1, probe);
        SAMPLE_LEN - probe.len() < SAMPLE_LEN / GAIN_MIN
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_told_from_text() {
        let mut noise = vec![0; 1 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        let (mut codec, mut probe) = (BlockCodec::new(), Vec::new());
        assert!(is_incompressible(&noise, &mut codec, &mut probe));
        let text = b"the same words again and again, ".repeat(10_000);
        assert!(!is_incompressible(&text, &mut codec, &mut probe));
        noise[500_000..550_000].fill(b' ');
        assert!(!is_incompressible(&noise, &mut codec, &mut probe), "one compressible place is enough");
        assert!(!is_incompressible(&noise[..100], &mut codec, &mut probe), "too short to tell");
    }
}
