//! A header that lies is refused when the file is opened, and takes no memory on its word, however well it is signed.

mod checkpoint;
mod container;
mod memory;

use bigsmall::{Error, Kind, Options, Reader, compress_bytes, decompress_bytes};
use checkpoint::{Checkpoint, every_codec};
use container::Container;
use memory::largest_request;
use serde_json::{Value, json};
use std::mem::discriminant;

/// Memory that opening a small file may ask for at once.
const SMALL: usize = 4 << 20;

fn packed(checkpoint: &Checkpoint) -> Vec<u8> {
    compress_bytes(
        &checkpoint.to_bytes(),
        &Options {
            threads: 1,
            ..Options::default()
        },
    )
    .unwrap()
}

fn base() -> Container {
    Container::of(&packed(&every_codec()))
}

/// Index of the tensor of that name in the header.
fn at(name: &str) -> usize {
    every_codec().tensors.iter().position(|tensor| tensor.name == name).unwrap()
}

/// The error of opening, with the largest piece of memory that was asked for.
fn refusal(file: &[u8], what: &str) -> Error {
    let (opened, most) = largest_request(|| Reader::open(file).map(|_| ()));
    assert!(most < SMALL, "{what}: {most} bytes of memory");
    opened.expect_err(what)
}

fn check(file: &[u8], kind: &Kind, what: &str) {
    let error = refusal(file, what);
    assert!(discriminant(&error.kind) == discriminant(kind), "{what}: {error:?}");
    assert!(!error.message.is_empty());
}

/// A change of a header.
type Edit = Box<dyn FnOnce(&mut Value)>;

/// Sets a field of a tensor.
fn of_tensor(name: &str, field: &'static str, value: Value) -> Edit {
    let tensor = at(name);
    Box::new(move |header| header["tensors"][tensor][field] = value)
}

/// Sets a field of the header.
fn of_header(field: &'static str, value: Value) -> Edit {
    Box::new(move |header| header[field] = value)
}

/// Sets a field of the pack.
fn of_pack(field: &'static str, value: Value) -> Edit {
    Box::new(move |header| header["packs"][0][field] = value)
}

#[test]
fn the_file_itself_is_whole() {
    assert_eq!(decompress_bytes(&base().to_bytes(), 1).unwrap(), every_codec().to_bytes());
}

#[test]
fn fields_that_lie_are_refused() {
    let huge = u64::MAX;
    let half = 1u64 << 63;
    let md5 = base().header["tensors"][0]["md5"].as_str().unwrap().to_uppercase();
    let edits: Vec<(&str, Edit)> = vec![
        // Lengths
        (
            "bytes 64 more",
            Box::new(|h| increment(&mut h["tensors"][at("planes")]["bytes"], 64)),
        ),
        (
            "bytes 64 less",
            Box::new(|h| increment(&mut h["tensors"][at("planes")]["bytes"], -64)),
        ),
        (
            "bytes of the last tensor one more",
            Box::new(|h| increment(&mut h["tensors"][at("noise")]["bytes"], 1)),
        ),
        ("stored bytes of another length, with room for them", {
            Box::new(|h| {
                increment(&mut h["tensors"][at("noise")]["bytes"], -1);
                increment(&mut h["tensors"][at("sequence")]["bytes"], 1);
            })
        }),
        ("bytes beyond any file", of_tensor("planes", "bytes", huge.into())),
        ("bytes that wrap around", of_tensor("planes", "bytes", (huge - 100).into())),
        ("bytes negative", of_tensor("planes", "bytes", json!(-1))),
        ("bytes a fraction", of_tensor("planes", "bytes", json!(817.5))),
        ("bytes too many digits", of_tensor("planes", "bytes", json!(1e30))),
        ("bytes text", of_tensor("planes", "bytes", json!("817"))),
        (
            "tables 64 more",
            Box::new(|h| h["tables"] = (h["tables"].as_u64().unwrap_or(0) + 64).into()),
        ),
        ("tables huge", of_header("tables", (1u64 << 40).into())),
        ("a pack's bytes huge", of_pack("bytes", huge.into())),
        ("a pack's bytes gone", of_pack("bytes", json!(0))),
        // Where blobs begin
        ("blobs inside the header", of_header("data_offset", json!(0))),
        ("blobs out of line", of_header("data_offset", json!((1 << 16) + 1))),
        ("blobs later", of_header("data_offset", json!((1 << 16) + 64))),
        ("blobs at the end of numbers", of_header("data_offset", (huge - 63).into())),
        ("blobs at no number", of_header("data_offset", Value::Null)),
        ("blobs at a negative number", of_header("data_offset", json!(-64))),
        // Shapes
        ("a dimension negative", of_tensor("planes", "shape", json!([-16, 36]))),
        ("a dimension a fraction", of_tensor("planes", "shape", json!([16, 36.5]))),
        ("a shape that is none", of_tensor("planes", "shape", json!(576))),
        (
            "a shape that overflows",
            of_tensor("planes", "shape", json!([1u64 << 40, 1u64 << 40])),
        ),
        ("a shape whose bytes overflow", of_tensor("planes", "shape", json!([half]))),
        ("a shape beyond signed numbers", of_tensor("constant", "shape", json!([1u64 << 61]))),
        (
            "an empty shape with strides that overflow",
            of_tensor("empty", "shape", json!([0, 1u64 << 62, 2])),
        ),
        ("a shape of 65 dimensions", of_tensor("constant", "shape", json!(vec![1; 65]))),
        ("tensors that are larger than any file together", Box::new(|h| add_constants(h, 8))),
        (
            "tensors that are larger than any number together",
            Box::new(|h| add_constants(h, 16)),
        ),
        ("an empty tensor with words", of_tensor("empty", "shape", json!([1, 3]))),
        ("a tied tensor of another size", of_tensor("tied", "shape", json!([575]))),
        ("a stored tensor of another size", of_tensor("noise", "shape", json!([151]))),
        ("a packed tensor of more words", of_tensor("pack.1", "shape", json!([145]))),
        ("a packed tensor of fewer words", of_tensor("pack.1", "shape", json!([143]))),
        ("a packed tensor of huge size", of_tensor("pack.1", "shape", json!([1u64 << 60]))),
        // Codecs and what they need
        ("stored, but nowhere", of_tensor("constant", "codec", json!("stored"))),
        ("a codec without a blob for one", of_tensor("planes", "codec", json!("empty"))),
        ("a constant with a blob", of_tensor("planes", "codec", json!("constant"))),
        ("a constant without a value", of_tensor("constant", "value", Value::Null)),
        ("a constant of half a word", of_tensor("constant", "value", json!("0000"))),
        ("a constant of odd digits", of_tensor("constant", "value", json!("0000000"))),
        ("a constant of no digits", of_tensor("constant", "value", json!("zzzzzzzz"))),
        ("a constant of upper case", of_tensor("constant", "value", json!("0000403F"))),
        ("tied to itself", of_tensor("tied", "tied_to", json!(at("tied")))),
        ("tied to a later one", of_tensor("tied", "tied_to", json!(at("tied") + 1))),
        ("tied to none", of_tensor("tied", "tied_to", json!(1000))),
        ("tied to a negative one", of_tensor("tied", "tied_to", json!(-1))),
        ("tied to nothing", of_tensor("tied", "tied_to", Value::Null)),
        (
            "tied to one of other dtype and size",
            of_tensor("tied", "tied_to", json!(at("empty"))),
        ),
        ("tied to one that is tied", {
            Box::new(|h| {
                let mut another = h["tensors"][at("tied")].clone();
                another["name"] = json!("another");
                another["tied_to"] = json!(at("tied"));
                h["tensors"].as_array_mut().unwrap().push(another);
            })
        }),
        ("a pack that does not exist", of_tensor("pack.0", "pack", json!(1))),
        ("a pack that is none", of_tensor("pack.0", "pack", Value::Null)),
        ("a pack without members", {
            Box::new(|h| {
                let pack = json!({"dtype": "F16", "words": 10, "codec": "planes", "bytes": 0});
                h["packs"].as_array_mut().unwrap().push(pack);
            })
        }),
        ("a pack of another dtype", of_pack("dtype", json!("BF16"))),
        ("a pack of more words", of_pack("words", json!(337))),
        ("a pack of fewer words", of_pack("words", json!(335))),
        ("a pack of huge size", of_pack("words", (1u64 << 62).into())),
        ("a pack of negative size", of_pack("words", json!(-336))),
        ("a pack with a codec for tensors", of_pack("codec", json!("constant"))),
        ("packs that are none", of_header("packs", json!(7))),
        // Orders
        ("an order of no name", of_tensor("planes", "order", json!("oki"))),
        ("the natural order", of_tensor("planes", "order", json!("oik"))),
        ("an order of nothing", of_tensor("empty", "order", json!("iok"))),
        ("an order of a constant", of_tensor("constant", "order", json!("iok"))),
        ("an order of what is tied", of_tensor("tied", "order", json!("iok"))),
        ("an order that is none", of_tensor("planes", "order", json!(["i", "o", "k"]))),
        // Names
        ("a name twice", of_tensor("planes", "name", json!("empty"))),
        ("a name that is the metadata's", of_tensor("planes", "name", json!("__metadata__"))),
        ("a name that is none", of_tensor("planes", "name", json!(7))),
        // Digests
        ("a digest too short", of_tensor("planes", "md5", json!("00"))),
        ("a digest of no digits", of_tensor("planes", "md5", json!("g".repeat(32)))),
        ("a digest in upper case", of_tensor("empty", "md5", md5.into())),
        (
            "a digest that is missing",
            Box::new(|h| drop(h["tensors"][0].as_object_mut().unwrap().remove("md5"))),
        ),
        // The rest
        ("no tensors", Box::new(|h| drop(h.as_object_mut().unwrap().remove("tensors")))),
        ("tensors that are none", of_header("tensors", json!({}))),
        ("one tensor less", Box::new(|h| drop(h["tensors"].as_array_mut().unwrap().pop()))),
        ("metadata that is no text", of_header("metadata", json!({"epoch": 3}))),
        ("metadata that is no object", of_header("metadata", json!(["pt"]))),
        ("a source header of no tensors", of_header("source_header", json!("{}"))),
        ("a source header that is no JSON", of_header("source_header", json!("{"))),
        ("a source header that is no text", of_header("source_header", json!(7))),
    ];
    let base = base();
    for (what, edit) in edits {
        check(&base.edited(edit), &Kind::Format, what);
    }
    for (what, edit) in [
        ("an unknown codec", of_tensor("planes", "codec", json!("telepathy"))),
        ("an unknown codec of a pack", of_pack("codec", json!("telepathy"))),
        ("an unknown dtype", of_tensor("planes", "dtype", json!("BF17"))),
        ("an unknown dtype of a pack", of_pack("dtype", json!("F17"))),
    ] {
        check(&base.edited(edit), &Kind::Version, what);
    }
}

/// Adds constants of 2^60 bytes each.
fn add_constants(header: &mut Value, n: usize) {
    for i in 0..n {
        let mut constant = header["tensors"][at("constant")].clone();
        constant["name"] = json!(format!("constant.{i}"));
        constant["shape"] = json!([1u64 << 58]);
        header["tensors"].as_array_mut().unwrap().push(constant);
    }
}

fn increment(number: &mut Value, by: i64) {
    *number = (number.as_i64().unwrap() + by).into();
}

#[test]
fn source_headers_that_describe_other_tensors_are_refused() {
    let checkpoint = every_codec();
    let items = checkpoint.header_items();
    let same = format!("{{{}}}", items.join(", "));
    let base = base();
    let with = |source_header: &str| base.edited(of_header("source_header", source_header.into()));
    let back = decompress_bytes(&with(&same), 1).unwrap();
    assert!(
        back == checkpoint.with_header(same.as_bytes()),
        "one that describes the same is used as it is"
    );
    for (what, other) in [
        ("another name", same.replace("\"noise\"", "\"poise\"")),
        ("another dtype", same.replace("\"U8\"", "\"I8\"")),
        ("another shape", same.replace("[150]", "[15,10]")),
        ("a tensor less", same.replace(&format!(", {}", items.last().unwrap()), "")),
        ("a tensor twice", same.replacen('{', &format!("{{{},", items.last().unwrap()), 1)),
        (
            "a tensor more",
            same.replacen('{', r#"{"more":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"#, 1),
        ),
        (
            "tensors that changed places",
            same.replace("\"pack.0\"", "\"x\"")
                .replace("\"pack.1\"", "\"pack.0\"")
                .replace("\"x\"", "\"pack.1\""),
        ),
        (
            "offsets that overlap",
            same.replacen("\"data_offsets\":[0,1152]", "\"data_offsets\":[1,1153]", 1),
        ),
        (
            "offsets that are negative",
            same.replacen("\"data_offsets\":[0,1152]", "\"data_offsets\":[-1,1151]", 1),
        ),
    ] {
        assert_ne!(other, same, "{what}");
        check(&with(&other), &Kind::Format, what);
    }
}

#[test]
fn text_that_is_no_header_is_refused() {
    let base = base();
    let json = base.header.to_string();
    let twice = json.replacen("\"mode\":", "\"mode\":\"balanced\",\"mode\":", 1);
    assert_ne!(twice, json);
    for (what, stored) in [
        ("nothing", Vec::new()),
        ("a key twice", twice.into_bytes()),
        ("half of it", json.as_bytes()[..json.len() / 2].to_vec()),
        ("something behind it", format!("{json} x").into_bytes()),
        ("an array", b"[]".to_vec()),
        ("an empty object", b"{}".to_vec()),
        ("a million brackets", vec![b'['; 50_000]),
        ("bytes that are no text", b"{\"format\":\"\xFF\xFE\"}".to_vec()),
        ("a frame's first bytes", vec![0x28, 0xB5, 0x2F, 0xFD]),
        ("half a frame", {
            let frame = zstd::bulk::compress(json.as_bytes(), 3).unwrap();
            frame[..frame.len() / 2].to_vec()
        }),
        (
            "two frames",
            [
                zstd::bulk::compress(json.as_bytes(), 3).unwrap(),
                zstd::bulk::compress(b" ", 3).unwrap(),
            ]
            .concat(),
        ),
        (
            "a frame with bytes behind it",
            [&zstd::bulk::compress(json.as_bytes(), 3).unwrap()[..], b"x"].concat(),
        ),
        (
            "a frame in a frame",
            zstd::bulk::compress(&zstd::bulk::compress(json.as_bytes(), 3).unwrap(), 3).unwrap(),
        ),
    ] {
        check(&base.with_header(&stored), &Kind::Format, what);
    }
    assert!(Reader::open(&base.with_header(&zstd::bulk::compress(json.as_bytes(), 3).unwrap())[..]).is_ok());
}

#[test]
fn a_header_that_unpacks_without_end_is_refused() {
    // A frame of a few kilobytes that holds a gigabyte of blanks, and says so or not.
    let blanks = vec![b' '; 1 << 20];
    for says_size in [false, true] {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        if says_size {
            encoder.set_pledged_src_size(Some(1 << 30)).unwrap();
        }
        encoder.include_contentsize(says_size).unwrap();
        for _ in 0..1 << 10 {
            std::io::Write::write_all(&mut encoder, &blanks).unwrap();
        }
        let frame = encoder.finish().unwrap();
        let file = Container {
            header: Value::Null,
            blobs: Vec::new(),
        }
        .with_header(&frame);
        let (opened, most) = largest_request(|| Reader::open(&file[..]).map(|_| ()));
        let error = opened.unwrap_err();
        assert!(
            matches!(error.kind, Kind::Format) && error.message.contains("unpacks to more"),
            "{error:?}"
        );
        assert!(most <= 512 << 20, "{most} bytes of memory");
    }
}

#[test]
fn sizes_beyond_memory_are_an_error() {
    // A constant of a quintillion words is consistent, but nothing that fits here.
    let base = base();
    let file = base.edited(of_tensor("constant", "shape", json!([1u64 << 58, 1])));
    let reader = Reader::open(&file[..]).unwrap();
    let mut words = [0; 8];
    reader.read_words(at("constant"), (1 << 58) - 2..1 << 58, &mut words).unwrap();
    assert_eq!(words, [0, 0, 0x40, 0x3F, 0, 0, 0x40, 0x3F]);
    let error = decompress_bytes(&file, 1).unwrap_err();
    assert!(
        matches!(&error.kind, Kind::Io(error) if error.kind() == std::io::ErrorKind::OutOfMemory),
        "{error:?}"
    );
    let loaded = bigsmall::load(&reader, &[at("constant"), at("planes")], 1, &bigsmall::no_progress).unwrap();
    let [Err(error), Ok(_)] = &loaded[..] else {
        panic!("one is too large, the other is not")
    };
    assert!(
        matches!(&error.kind, Kind::Io(error) if error.kind() == std::io::ErrorKind::OutOfMemory),
        "{error:?}"
    );

    // A chunked tensor of such a size contradicts its index.
    let file = base.edited(|h| {
        ["planes", "tied"]
            .iter()
            .for_each(|name| h["tensors"][at(name)]["shape"] = json!([1u64 << 55, 4]))
    });
    let reader = Reader::open(&file[..]).unwrap();
    let (read, most) = largest_request(|| reader.read_words(at("planes"), 0..4, &mut words));
    assert!(matches!(read.unwrap_err().kind, Kind::Corrupt));
    assert!(most < SMALL, "{most} bytes of memory");
}

#[test]
fn what_does_not_fit_the_words_is_noticed_when_these_are_read() {
    let base = base();
    let check = |file: &[u8], what: &str| {
        let error = decompress_bytes(file, 1).expect_err(what);
        assert!(matches!(error.kind, Kind::Corrupt), "{what}: {error:?}");
    };
    for (name, shape) in [
        ("palette", [320, 2]),
        ("rows", [63, 8]),
        ("sequence", [127, 1]),
        ("sparse", [31, 30]),
        ("constant", [4, 5]),
    ] {
        check(&base.edited(of_tensor(name, "shape", json!(shape))), name);
    }
    for shape in [[16, 35], [16, 37], [0, 36]] {
        // What is tied to a tensor has to have its size.
        check(
            &base.edited(|h| {
                ["planes", "tied"]
                    .iter()
                    .for_each(|name| h["tensors"][at(name)]["shape"] = json!(shape))
            }),
            "planes",
        );
    }
    for by in [-1, 1] {
        // So little changes the place of no other blob.
        check(&base.edited(|h| increment(&mut h["tensors"][at("planes")]["bytes"], by)), "bytes");
    }
    check(&base.edited(of_tensor("constant", "value", json!("0000403e"))), "another constant");
    check(&base.edited(of_tensor("constant", "codec", json!("planes"))), "planes, but nowhere");
    check(&base.edited(of_tensor("palette", "order", json!("iok"))), "another order");
}

#[test]
fn keys_of_later_releases_are_passed_over() {
    let file = base().edited(|h| {
        h["comment"] = json!({"by": "a later release"});
        h["tensors"][0]["unit"] = json!("metre");
        h["packs"][0]["colour"] = json!("red");
    });
    assert_eq!(decompress_bytes(&file, 1).unwrap(), every_codec().to_bytes());
}
