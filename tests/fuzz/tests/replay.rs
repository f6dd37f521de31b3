//! Every corpus, every vector and what once went wrong through every target, without a fuzzer.

use std::fs;
use std::path::{Path, PathBuf};

use ipss_fuzz::{TARGETS, target};

fn room() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The files of a folder, by name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_target_has_a_corpus_and_takes_it() {
    for target in TARGETS {
        let corpus = files(&room().join(target.name));
        assert!(!corpus.is_empty(), "{} has no corpus", target.name);
        for file in corpus {
            eprintln!("{}", file.display()); // which one it was, when the next line panics
            target.check(&fs::read(&file).unwrap());
        }
    }
}

#[test]
fn every_corpus_belongs_to_a_target() {
    for folder in files(&room()) {
        let name = folder.file_name().unwrap().to_str().unwrap();
        assert!(target(name).is_some(), "{name} is no target");
    }
}

#[test]
fn corpora_stay_small() {
    let sizes =
        files(&room()).into_iter().flat_map(|folder| files(&folder)).map(|file| fs::metadata(file).unwrap().len());
    let (count, octets) = sizes.fold((0, 0), |(count, octets), size| (count + 1, octets + size));
    assert!(octets < 1 << 20, "{count} files, {octets} octets: merge them (README.md)");
}

#[test]
fn every_target_takes_what_belongs_to_others() {
    let corpora: Vec<_> = files(&room()).into_iter().flat_map(|folder| files(&folder).into_iter().take(20)).collect();
    let fast = TARGETS.iter().filter(|target| !matches!(target.name, "dlms_head_end" | "dlms_meter"));
    for target in fast {
        for file in &corpora {
            eprintln!("{} {}", target.name, file.display());
            target.check(&fs::read(file).unwrap());
        }
    }
}
