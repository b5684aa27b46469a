//! Small checkpoints for documentation and tests.

/// A checkpoint with a BF16 matrix of normally distributed values, a bias of zeros and a scalar.
pub fn checkpoint() -> Vec<u8> {
    let mut x = 1u32;
    let mut next = || {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (x >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let matrix: Vec<u8> = (0..64 * 96)
        .flat_map(|_| ((((0..6).map(|_| next()).sum::<f32>() * 0.03).to_bits() >> 16) as u16).to_le_bytes())
        .collect();
    let header = concat!(
        r#"{"__metadata__":{"format":"pt"},"weight":{"dtype":"BF16","shape":[64,96],"data_offsets":[0,12288]},"#,
        r#""bias":{"dtype":"F32","shape":[64],"data_offsets":[12288,12544]},"scale":{"dtype":"F16","shape":[],"data_offsets":[12544,12546]}}"#
    );
    let mut file = (header.len().next_multiple_of(8) as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(8 + header.len().next_multiple_of(8), b' ');
    file.extend(matrix);
    file.extend([0; 256]);
    file.extend([0x00, 0x3C]);
    file
}
