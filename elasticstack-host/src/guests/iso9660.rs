//! Writes a CD of a few small files: ISO 9660 (ECMA-119) with Joliet names. Pure.
//!
//! Invariant: equal files give equal bytes; nothing of the time or of this host is in them.
//!
//! ```text
//! block 16  primary descriptor   19, 20  its path tables    23  its root directory
//!       17  Joliet's             21, 22  its path tables    24  its root directory
//!       18  the end of them      from 25 on  the files, each from the start of a block
//! ```
//! Both directories name the same blocks. Systems that know Joliet see the names as they are;
//! others see them in capitals.

const BLOCK: usize = 2_048;
const DESCRIPTORS: usize = 16;
const FIRST_FILE: u32 = 25;
/// A path table has the root only.
const PATH_TABLE: u32 = 10;

/// One of the two trees of names over the same files.
#[derive(Debug, Clone, Copy)]
enum Tree {
    Primary,
    Joliet,
}

/// A file and its place.
struct Placed<'a> {
    name: &'a str,
    block: u32,
    size: u32,
}

/// The image of a CD named `label` with these files in its root directory; `None` if they are too
/// many for one block of names, or too large for their sizes to be written.
pub(super) fn image(label: &str, files: &[(&str, &[u8])]) -> Option<Vec<u8>> {
    let mut placed = Vec::new();
    let mut end = FIRST_FILE;
    for (name, content) in files {
        let size = u32::try_from(content.len()).ok()?;
        placed.push(Placed { name, block: end, size });
        end = end.checked_add(u32::try_from(content.len().div_ceil(BLOCK)).ok()?)?;
    }
    let mut disk = vec![0; DESCRIPTORS * BLOCK];
    for tree in [Tree::Primary, Tree::Joliet] {
        block(&mut disk, &descriptor(tree, label, end))?;
    }
    block(&mut disk, b"\xffCD001\x01")?;
    for tree in [Tree::Primary, Tree::Joliet] {
        let root = tree.root();
        block(&mut disk, &path_table(root.to_le_bytes(), 1_u16.to_le_bytes()))?;
        block(&mut disk, &path_table(root.to_be_bytes(), 1_u16.to_be_bytes()))?;
    }
    for tree in [Tree::Primary, Tree::Joliet] {
        block(&mut disk, &directory(tree, &placed))?;
    }
    for (_, content) in files {
        disk.extend_from_slice(content);
        pad(&mut disk);
    }
    Some(disk)
}

/// Adds one block, zeros behind `content`.
fn block(disk: &mut Vec<u8>, content: &[u8]) -> Option<()> {
    if content.len() > BLOCK {
        return None;
    }
    disk.extend_from_slice(content);
    pad(disk);
    Some(())
}

fn pad(disk: &mut Vec<u8>) {
    disk.resize(disk.len().next_multiple_of(BLOCK), 0);
}

impl Tree {
    const fn kind(self) -> u8 {
        match self {
            Self::Primary => 1,
            Self::Joliet => 2,
        }
    }

    const fn path_table(self) -> u32 {
        match self {
            Self::Primary => 19,
            Self::Joliet => 21,
        }
    }

    const fn root(self) -> u32 {
        match self {
            Self::Primary => 23,
            Self::Joliet => 24,
        }
    }

    /// Says that the names of this tree are UCS-2, level 3.
    const fn escape(self) -> &'static [u8] {
        match self {
            Self::Primary => b"",
            Self::Joliet => b"%/E",
        }
    }

    fn text(self, text: &str) -> Vec<u8> {
        match self {
            Self::Primary => text.as_bytes().to_vec(),
            Self::Joliet => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        }
    }

    /// `text` in a field of so many bytes, spaces behind it.
    fn field(self, text: &str, size: usize) -> Vec<u8> {
        let mut field = self.text(text);
        let space = self.text(" ");
        while field.len() + space.len() <= size {
            field.extend_from_slice(&space);
        }
        field.resize(size, 0);
        field
    }

    fn file_name(self, name: &str) -> Vec<u8> {
        match self {
            Self::Primary => self.text(&format!("{}.;1", name.to_ascii_uppercase())),
            Self::Joliet => self.text(name),
        }
    }
}

fn descriptor(tree: Tree, label: &str, blocks: u32) -> Vec<u8> {
    let mut block = vec![tree.kind()];
    block.extend_from_slice(b"CD001\x01\0");
    block.extend(tree.field("", 32));
    block.extend(tree.field(label, 32));
    block.extend_from_slice(&[0; 8]);
    block.extend(both_u32(blocks));
    block.extend_from_slice(tree.escape());
    block.resize(120, 0);
    for number in [1, 1, 2_048] {
        block.extend(both_u16(number));
    }
    block.extend(both_u32(PATH_TABLE));
    let table = tree.path_table();
    block.extend_from_slice(&table.to_le_bytes());
    block.extend_from_slice(&[0; 4]);
    block.extend_from_slice(&(table + 1).to_be_bytes());
    block.extend_from_slice(&[0; 4]);
    block.extend(entry(b"\0", tree.root(), 2_048, IS_DIRECTORY));
    // The set, who published it, who prepared it, with what; then three files that tell more.
    for size in [128, 128, 128, 128, 37, 37, 37] {
        block.extend(tree.field("", size));
    }
    // Made, changed, expires, effective: not said.
    for _ in 0..4 {
        block.extend_from_slice(b"0000000000000000\0");
    }
    block.push(1);
    block
}

fn path_table(root: [u8; 4], parent: [u8; 2]) -> Vec<u8> {
    let mut table = vec![1, 0];
    table.extend_from_slice(&root);
    table.extend_from_slice(&parent);
    table.extend_from_slice(&[0, 0]);
    table
}

fn directory(tree: Tree, files: &[Placed<'_>]) -> Vec<u8> {
    let mut names: Vec<_> = files.iter().map(|file| (tree.file_name(file.name), file)).collect();
    names.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut block = entry(b"\0", tree.root(), 2_048, IS_DIRECTORY);
    block.extend(entry(b"\x01", tree.root(), 2_048, IS_DIRECTORY));
    for (name, file) in names {
        block.extend(entry(&name, file.block, file.size, 0));
    }
    block
}

const IS_DIRECTORY: u8 = 2;

/// One entry of a directory. Its date is not said.
fn entry(name: &[u8], block: u32, size: u32, flags: u8) -> Vec<u8> {
    let mut entry = vec![0, 0];
    entry.extend(both_u32(block));
    entry.extend(both_u32(size));
    entry.extend_from_slice(&[0; 7]);
    entry.extend_from_slice(&[flags, 0, 0]);
    entry.extend(both_u16(1));
    entry.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    entry.extend_from_slice(name);
    if entry.len() % 2 == 1 {
        entry.push(0);
    }
    let length = u8::try_from(entry.len()).unwrap_or(u8::MAX);
    if let Some(first) = entry.first_mut() {
        *first = length;
    }
    entry
}

/// A number in both orders of bytes, little end first.
fn both_u32(number: u32) -> impl Iterator<Item = u8> {
    number.to_le_bytes().into_iter().chain(number.to_be_bytes())
}

fn both_u16(number: u16) -> impl Iterator<Item = u8> {
    number.to_le_bytes().into_iter().chain(number.to_be_bytes())
}
