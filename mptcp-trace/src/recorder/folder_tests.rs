use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_recording_is_for_its_owner_only() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("kept");
    let folder = Folder::lock(&path).unwrap();
    let (segment, _file) = folder.create_segment(1, 1).unwrap();
    let (partial, _file, _name) = create_dump(&path, "20261124T025500Z").unwrap();
    assert_eq!(mode(&path), 0o700);
    for file in [segment, partial, path.join(LOCK)] {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[test]
fn a_folder_that_others_may_write_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path();
    fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    let why = format!("{:#}", Folder::lock(path).unwrap_err());
    assert!(
        why.contains("other users may write there (mode 777)"),
        "{why}"
    );
    let file = path.join("file");
    fs::write(&file, "").unwrap();
    let why = format!("{:#}", Folder::lock(&file).unwrap_err());
    assert!(why.contains("not a directory"), "{why}");
    let why = format!("{:#}", Folder::lock(&path.join("no/such")).unwrap_err());
    assert!(
        why.contains("cannot record in") && why.contains("No such file"),
        "{why}"
    );
}

#[test]
fn two_recorders_do_not_share_a_folder() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("kept");
    let first = Folder::lock(&path).unwrap();
    first.create_segment(1, 1).unwrap();
    assert_eq!(is_recorded(&path), Some(true));
    let why = format!("{:#}", Folder::lock(&path).unwrap_err());
    let says = format!(
        "another mptcp-trace (process {}) records there",
        std::process::id()
    );
    assert!(why.contains(&says), "{why}");
    drop(first);
    assert_eq!(is_recorded(&path), Some(false));
    assert!(Folder::lock(&path).is_ok());
    assert_eq!(is_recorded(parent.path()), None);
}

#[test]
fn numbers_go_on_where_an_earlier_run_ended() {
    let parent = tempfile::tempdir().unwrap();
    let folder = Folder::lock(&parent.path().join("kept")).unwrap();
    assert_eq!(folder.next_number().unwrap(), 1);
    folder.create_segment(9, 7).unwrap();
    // Not ours.
    fs::write(folder.path().join("segment-x.mpt"), "").unwrap();
    fs::write(folder.path().join("other"), "").unwrap();
    assert_eq!(folder.next_number().unwrap(), 10);
    // A number of more digits is a larger one.
    folder.create_segment(100_000_000, 7).unwrap();
    assert_eq!(folder.next_number().unwrap(), 100_000_001);
    let why = folder.create_segment(9, 7).unwrap_err();
    assert_eq!(why.kind(), ErrorKind::AlreadyExists);
}

#[test]
fn the_oldest_segments_make_room() {
    let parent = tempfile::tempdir().unwrap();
    let folder = Folder::lock(&parent.path().join("kept")).unwrap();
    for number in 1..=5 {
        let (_, mut file) = folder.create_segment(number, 1).unwrap();
        file.write_all(&[0; 100]).unwrap();
    }
    let numbers = || -> Vec<u64> {
        let all = segments(folder.path()).unwrap();
        all.iter().map(|it| it.number).collect()
    };
    folder.make_room(500).unwrap();
    assert_eq!(numbers(), [1, 2, 3, 4, 5]);
    folder.make_room(399).unwrap();
    assert_eq!(numbers(), [3, 4, 5]);
    assert_eq!(bytes(folder.path()).unwrap(), 300);
    folder.make_room(0).unwrap();
    assert_eq!(numbers(), [0; 0]);
}

#[test]
fn dumps_have_names_of_their_own_and_the_newest_stay() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path();
    for number in 0..4 {
        let (partial, mut file, path) = create_dump(folder, "20261124T025500Z").unwrap();
        file.write_all(&[0; 100]).unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 + number);
        file.set_modified(at).unwrap();
        fs::rename(partial, path).unwrap();
    }
    let left = || -> Vec<String> {
        let all = dumps(folder).unwrap().into_iter();
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        all.map(|it| name(it.1)).collect()
    };
    assert_eq!(left().len(), 4);
    keep_dumps(folder, 3, 1000).unwrap();
    let names = ["-1", "-2", "-3"].map(|it| format!("dump-20261124T025500Z{it}.mpt"));
    assert_eq!(left(), names);
    keep_dumps(folder, 3, 150).unwrap();
    assert_eq!(left(), names[2..]);
    // What a killed process left is removed by the next one.
    let (partial, ..) = create_dump(folder, "20261124T025501Z").unwrap();
    assert!(partial.exists());
    let _folder = Folder::lock(folder).unwrap();
    assert!(!partial.exists());
}

#[test]
fn a_folder_that_was_never_recorded_in_is_left_as_it_was() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("kept");
    drop(Folder::lock(&path).unwrap());
    assert!(!path.exists());
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
    drop(Folder::lock(&path).unwrap());
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    let folder = Folder::lock(&path).unwrap();
    folder.create_segment(1, 1).unwrap();
    drop(folder);
    assert_eq!(is_recorded(&path), Some(false));
    // A lock of an earlier run stays.
    drop(Folder::lock(&path).unwrap());
    assert_eq!(is_recorded(&path), Some(false));
}

#[test]
fn a_folder_that_was_replaced_is_checked_as_at_the_start() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("kept");
    let mut folder = Folder::lock(&path).unwrap();
    folder.create_segment(1, 1).unwrap();
    assert!(folder.restore().is_ok());
    let other = parent.path().join("other");
    fs::rename(&path, &other).unwrap();
    std::os::unix::fs::symlink(&other, &path).unwrap();
    let why = folder.restore().unwrap_err().to_string();
    assert!(why.contains("replaced by a symbolic link"), "{why}");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
    let why = folder.restore().unwrap_err().to_string();
    assert!(why.contains("other users may write there"), "{why}");
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    fs::remove_dir(&path).unwrap();
    assert!(folder.restore().is_ok());
    assert_eq!(is_recorded(&path), Some(true));
}

#[test]
fn files_of_a_recording_are_known_by_place_and_name() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path();
    let is_ours = |name: &str| is_part(path, &path.join(name));
    assert!(is_ours("segment-00000001-run-00000001.mpt") && is_ours(LOCK));
    assert!(!is_ours("incident.mpt"));
    assert!(!is_part(
        path,
        Path::new("/segment-00000001-run-00000001.mpt")
    ));
}

#[test]
fn a_fifo_in_the_folder_is_left_out_and_nobody_waits_for_it() {
    let parent = tempfile::tempdir().unwrap();
    let folder = Folder::lock(&parent.path().join("kept")).unwrap();
    let path = folder.path().join("segment-00000001-run-00000001.mpt");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let why = open_file(&path).unwrap_err().to_string();
    assert!(why.contains("not a regular file"), "{why}");
    assert_eq!(folder.next_number().unwrap(), 2);
    folder.make_room(0).unwrap();
    assert!(path.exists());
}
