//! Files of the published package, read.

use bigsmall::decompress_bytes;
use std::fs;
use std::path::{Path, PathBuf};

/// Every container beside the repository, if they are there.
fn shared() -> Vec<PathBuf> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|end| end == "bs" || end == "bsr" || end == "bsd") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/published"), &mut found);
    found.sort();
    found
}

#[test]
fn files_beside_the_repository_are_read() {
    let mut bad = 0;
    for path in shared() {
        if let Err(error) = decompress_bytes(&fs::read(&path).unwrap(), 2) {
            println!("{}: {error}", path.display());
            bad += 1;
        }
    }
    assert_eq!(bad, 0);
}
