//! Damage to a file and its sidecar is mended as far as `docs/format/ecc.md` promises, and told beyond that.

use bigsmall::{Kind, protect_bytes, repair_bytes};
use proptest::prelude::*;
use proptest::sample::Index;
use std::fs;
use std::path::PathBuf;

/// Bytes of a block.
const BLOCK: usize = 192;
const HEADER: usize = 96;

fn noise(n_bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..n_bytes).map(|_| next()).collect()
}

/// What a header says, and where things lie by the format page.
struct Sizes {
    n_groups: usize,
    n_parity: usize,
    pages: usize,
    parity: usize,
}

fn sizes(sidecar: &[u8], file_bytes: usize) -> Sizes {
    let n_parity = u32::from_le_bytes(sidecar[12..16].try_into().unwrap()) as usize;
    let n_groups = u64::from_le_bytes(sidecar[16..24].try_into().unwrap()) as usize;
    assert_eq!(u64::from_le_bytes(sidecar[24..32].try_into().unwrap()) as usize, file_bytes);
    let n_blocks = file_bytes.div_ceil(BLOCK);
    let pages = (n_blocks.div_ceil(30) + (n_parity * n_groups).div_ceil(30)) * 248;
    assert_eq!(sidecar.len(), 3 * HEADER + pages + n_parity * n_groups * BLOCK);
    Sizes {
        n_groups,
        n_parity,
        pages,
        parity: HEADER + pages + HEADER,
    }
}

fn is_mended(file: &[u8], damaged: &[u8], sidecar: &[u8]) {
    let back = repair_bytes(damaged, sidecar).unwrap_or_else(|error| panic!("{error}"));
    assert!(back == file, "something else came back");
}

fn is_refused(damaged: &[u8], sidecar: &[u8]) {
    let error = repair_bytes(damaged, sidecar).expect_err("this cannot be mended");
    assert!(matches!(error.kind, Kind::Corrupt | Kind::Format | Kind::Version), "{error:?}");
}

#[test]
fn the_default_overhead_is_14_percent() {
    let file = noise(3_000_000, 1);
    let sidecar = protect_bytes(&file, 14.0).unwrap();
    assert!((0.138..0.1402).contains(&(sidecar.len() as f64 / file.len() as f64)));
    // The burst that the page promises.
    let sizes = sizes(&sidecar, file.len());
    assert!((sizes.n_parity * sizes.n_groups - 1) * BLOCK > file.len() * 92 / 1000);
}

#[test]
fn an_intact_file_comes_back() {
    for n_bytes in [1, 2, 191, 192, 193, 5759, 5760, 5761, 100_000] {
        let file = noise(n_bytes, 2);
        let sidecar = protect_bytes(&file, 14.0).unwrap();
        sizes(&sidecar, n_bytes);
        is_mended(&file, &file, &sidecar);
    }
}

#[test]
fn three_wrong_bytes_in_every_block_are_mended() {
    let file = noise(200_000, 3);
    let sidecar = protect_bytes(&file, 5.0).unwrap();
    let mut damaged = file.clone();
    for (i, block) in damaged.chunks_mut(BLOCK).enumerate() {
        for k in 0..3.min(block.len()) {
            let at = (i * 31 + k * 67) % block.len();
            block[at] ^= (i % 255) as u8 + 1;
        }
    }
    is_mended(&file, &damaged, &sidecar);
}

#[test]
fn the_longest_promised_stretch_is_mended_wherever_it_is_and_a_longer_one_is_told() {
    let file = noise(1_000_003, 4);
    let sidecar = protect_bytes(&file, 14.0).unwrap();
    let sizes = sizes(&sidecar, file.len());
    assert!(sizes.n_groups > 1, "several groups are what this is about");
    let longest = (sizes.n_parity * sizes.n_groups - 1) * BLOCK;
    for start in [0, 1, 100, 191, 400_000, file.len() - longest] {
        for fill in [0, 0xFF] {
            let mut damaged = file.clone();
            damaged[start..start + longest].fill(fill);
            is_mended(&file, &damaged, &sidecar);
        }
        let mut damaged = file.clone();
        damaged[start..start + longest].copy_from_slice(&noise(longest, 5));
        is_mended(&file, &damaged, &sidecar);
    }
    is_mended(&file, &file[..file.len() - longest], &sidecar);
    let more = longest + 2 * sizes.n_groups * BLOCK;
    let mut damaged = file.clone();
    damaged[1000..1000 + more].fill(0);
    is_refused(&damaged, &sidecar);
    is_refused(&file[..file.len() - more], &sidecar);
}

#[test]
fn any_lost_sector_is_mended_in_small_files_too() {
    for n_bytes in [300, 4096, 10_000, 30_000] {
        let file = noise(n_bytes, 6);
        let sidecar = protect_bytes(&file, 14.0).unwrap();
        for start in (0..n_bytes).step_by(997) {
            let mut damaged = file.clone();
            let end = n_bytes.min(start + 4096);
            damaged[start..end].fill(0);
            is_mended(&file, &damaged, &sidecar);
        }
    }
}

#[test]
fn whatever_follows_the_file_is_cut_off() {
    let file = noise(50_000, 7);
    let sidecar = protect_bytes(&file, 14.0).unwrap();
    for more in [1, 190, 1_000_000] {
        is_mended(&file, &[&file[..], &noise(more, 8)].concat(), &sidecar);
        is_mended(&file, &file, &[&sidecar[..], &noise(more, 9)].concat());
    }
}

#[test]
fn one_byte_in_two_hundred_is_mended_in_file_and_sidecar() {
    let file = noise(2_000_000, 10);
    let sidecar = protect_bytes(&file, 14.0).unwrap();
    let strewn = |bytes: &[u8], seed: u64| {
        let mut damaged = bytes.to_vec();
        let random = noise(8 * bytes.len() / 200, seed);
        for draw in random.as_chunks::<8>().0 {
            let at = u64::from_le_bytes(*draw) as usize % bytes.len();
            damaged[at] ^= draw[7] | 1;
        }
        damaged
    };
    is_mended(&file, &strewn(&file, 11), &strewn(&sidecar, 12));
}

#[test]
fn a_sidecar_without_any_check_or_parity_still_proves_that_the_file_is_intact() {
    let file = noise(300_000, 13);
    let sidecar = protect_bytes(&file, 14.0).unwrap();
    for header in [0, sizes(&sidecar, file.len()).parity - HEADER, sidecar.len() - HEADER] {
        let mut damaged = vec![0; sidecar.len()];
        damaged[header..header + HEADER].copy_from_slice(&sidecar[header..header + HEADER]);
        // Half of the header may be wrong, too.
        damaged[header + 20..header + 44].fill(0xAA);
        let plan = repair_bytes(&file, &damaged);
        assert!(plan.is_ok_and(|back| back == file), "the header at {header}");
    }
    is_refused(&file, &vec![0; sidecar.len()]);
    is_refused(&file, b"");
}

#[test]
fn damage_to_the_sidecar_alone_is_mended_wherever_it_is() {
    let file = noise(400_000, 14);
    let sidecar = protect_bytes(&file, 14.0).unwrap();
    for start in (0..sidecar.len() - 4096).step_by(2048) {
        let mut damaged = sidecar.clone();
        damaged[start..start + 4096].fill(0);
        is_mended(&file, &file, &damaged);
        // A file that needs parity, too.
        let mut file_damaged = file.clone();
        file_damaged[200_000..208_000].fill(0);
        is_mended(&file, &file_damaged, &damaged);
    }
    for end in (HEADER..sidecar.len()).step_by(1999) {
        is_mended(&file, &file, &sidecar[..end]);
    }
}

#[test]
fn blocks_whose_checks_are_lost_are_not_taken_for_damaged() {
    let file = noise(400_000, 15);
    let mut sidecar = protect_bytes(&file, 14.0).unwrap();
    let sizes = sizes(&sidecar, file.len());
    // More checks than there is parity for blocks.
    let n_pages = (sizes.n_parity * sizes.n_groups).div_ceil(30) * 2;
    assert!(n_pages * 248 < sizes.pages);
    sidecar[HEADER..HEADER + n_pages * 248].copy_from_slice(&noise(n_pages * 248, 16));
    let mut damaged = file.clone();
    damaged[390_000..391_000].fill(1);
    is_mended(&file, &damaged, &sidecar);
}

#[test]
fn a_sidecar_of_another_file_is_told() {
    let file = noise(100_000, 17);
    let sidecar = protect_bytes(&file, 14.0).unwrap();
    is_refused(&noise(100_000, 18), &sidecar);
    is_refused(b"", &sidecar);
}

/// Reads headers that a writer would not write, with a right check.
#[test]
fn headers_that_lie_are_refused() {
    let file = noise(10_000, 19);
    let sidecar = protect_bytes(&file, 14.0).unwrap();
    for at in 8..48 {
        for value in [0, 1, 0x7F, 0xFF] {
            let mut lying = sidecar.clone();
            lying[at] = value;
            let check = check48(&lying[..48]);
            lying[48..96].copy_from_slice(&check);
            match repair_bytes(&file, &lying) {
                Ok(back) => assert!(back == file),
                Err(error) => assert!(matches!(error.kind, Kind::Corrupt | Kind::Format | Kind::Version), "{error:?}"),
            }
        }
    }
}

/// The check of the format page, by hand.
fn check48(message: &[u8]) -> Vec<u8> {
    let times = |a: u8, b: u8| {
        let product = (0..8).filter(|i| b >> i & 1 == 1).fold(0u16, |sum, i| sum ^ (a as u16) << i);
        (8..16)
            .rev()
            .fold(product, |p, i| if p >> i & 1 == 1 { p ^ 0x11D << (i - 8) } else { p }) as u8
    };
    let (mut generator, mut root) = (vec![1u8], 1);
    for _ in 0..48 {
        let mut product = vec![0; generator.len() + 1];
        for (i, &c) in generator.iter().enumerate() {
            product[i] ^= c;
            product[i + 1] ^= times(c, root);
        }
        generator = product;
        root = times(root, 2);
    }
    let mut rest = [message, &[0; 48]].concat();
    for at in 0..message.len() {
        let factor = rest[at];
        for (i, &c) in generator.iter().enumerate() {
            rest[at + i] ^= times(factor, c);
        }
    }
    rest.split_off(message.len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Damage of any kind gives the file back, or an error: never another file.
    #[test]
    fn damage_is_mended_or_told(
        n_bytes in 1..60_000usize,
        percent in 5.0..100.0f64,
        seed: u64,
        stretches in prop::collection::vec((any::<bool>(), any::<Index>(), 1..6000usize, any::<u8>()), 0..5),
        ends in (prop::option::of(any::<Index>()), prop::option::of(any::<Index>())),
    ) {
        let file = noise(n_bytes, seed);
        let sidecar = protect_bytes(&file, percent).unwrap();
        let (mut damaged, mut damaged_sidecar) = (file.clone(), sidecar.clone());
        for (in_file, at, n, value) in stretches {
            let bytes = if in_file { &mut damaged } else { &mut damaged_sidecar };
            let start = at.index(bytes.len());
            let end = bytes.len().min(start + n);
            bytes[start..end].fill(value);
        }
        if let Some(end) = ends.0 { damaged.truncate(end.index(n_bytes + 1)); }
        if let Some(end) = ends.1 { damaged_sidecar.truncate(end.index(sidecar.len() + 1)); }
        match repair_bytes(&damaged, &damaged_sidecar) {
            Ok(back) => prop_assert!(back == file),
            Err(error) => prop_assert!(matches!(error.kind, Kind::Corrupt | Kind::Format), "{:?}", error),
        }
    }
}

fn golden() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "golden", "dtypes.bs"].iter().collect()
}

fn sidecar() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "ecc", "dtypes.bs.ecc"].iter().collect()
}

/// A sidecar that was written once is written the same for ever, and mends.
#[test]
fn old_sidecars_are_written_again_and_mend() {
    let file = fs::read(golden()).unwrap();
    let sidecar = fs::read(sidecar()).unwrap();
    assert!(protect_bytes(&file, 14.0).unwrap() == sidecar);
    let mut damaged = file.clone();
    damaged[1000..5000].fill(0);
    is_mended(&file, &damaged, &sidecar);
}

#[test]
#[ignore = "writes files that are missing"]
fn write_missing_files() {
    let path = sidecar();
    if !path.exists() {
        fs::write(path, protect_bytes(&fs::read(golden()).unwrap(), 14.0).unwrap()).unwrap();
    }
}
