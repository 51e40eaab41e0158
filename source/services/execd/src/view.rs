//! Building the view: a root of its own, on which only what the plan names is mounted.

use crate::plan::{Access, AreaMount, Entry, Plan};
use crate::points::{Inside, Points, make_directory, open_beneath};
use crate::step::{Failed, Step};
use nexus_sys::mount::{Attributes, restrict};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The detached mounts that vfsd handed over.
pub(crate) struct Areas {
    pub(crate) tmp: OwnedFd,
    pub(crate) state: OwnedFd,
    pub(crate) shm: OwnedFd,
    pub(crate) work: Option<OwnedFd>,
}

/// A plan's entry with the host's side of it already in hand.
pub(crate) struct Prepared<'a> {
    entry: &'a Entry,
    mount: Option<OwnedFd>,
    is_directory: bool,
    content: Vec<u8>,
}

/// The longest file that is copied into a view's root: from about here on a mount costs less.
pub(crate) const COPY_BYTES_MAX: usize = 32 * 1024;

/// Opens what the view shows of the host, while this process still is who the user is.
///
/// Every source becomes a detached copy at once, with its restrictions on: from here on nothing depends on a path.
pub(crate) fn open_sources(plan: &Plan) -> Result<Vec<Prepared<'_>>, Failed> {
    rustix::mount::mount_change(
        "/",
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
    )
    .map_err(Failed::at(Step::Propagation))?;
    plan.view
        .iter()
        .map(|entry| open_source(entry, &plan.directory))
        .collect()
}

fn open_source<'e>(entry: &'e Entry, work: &Path) -> Result<Prepared<'e>, Failed> {
    let failed = Failed::at(Step::BindSource);
    let (source, attributes) = match entry {
        Entry::Bind { source, access, .. } | Entry::Pin { source, access, .. } => {
            let read_only = *access == Access::ReadOnly;
            (
                source.as_path(),
                Attributes {
                    read_only,
                    no_suid: true,
                    no_dev: true,
                    no_exec: false,
                },
            )
        }
        Entry::Device { name } => {
            let source = Path::new("/dev").join(name);
            let mount = clone_tree(&source).map_err(&failed)?;
            let attributes = Attributes {
                no_suid: true,
                no_exec: true,
                ..Attributes::default()
            };
            restrict(&mount, attributes, false).map_err(Failed::io(Step::BindSource))?;
            return Ok(Prepared {
                entry,
                mount: Some(mount),
                is_directory: false,
                content: Vec::new(),
            });
        }
        Entry::Copy { at } => {
            let content = read_small(at).map_err(&failed)?;
            return Ok(Prepared {
                entry,
                mount: None,
                is_directory: false,
                content,
            });
        }
        _ => {
            return Ok(Prepared {
                entry,
                mount: None,
                is_directory: true,
                content: Vec::new(),
            });
        }
    };
    // The work directory was resolved when the plan was made. Another session may write what leads to it: a link that is
    // on the way now is somebody's trick.
    let mount = if source.starts_with(work) {
        clone_exactly(source)
    } else {
        clone_tree(source)
    }
    .map_err(&failed)?;
    restrict(&mount, attributes, true).map_err(Failed::io(Step::BindSource))?;
    let stat = rustix::fs::statat(&mount, "", AtFlags::EMPTY_PATH).map_err(&failed)?;
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    Ok(Prepared {
        entry,
        mount: Some(mount),
        is_directory,
        content: Vec::new(),
    })
}

/// The whole of a small file. One that has grown since the plan was made is refused, not cut.
fn read_small(path: &Path) -> Result<Vec<u8>, Errno> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
    let size = usize::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or(usize::MAX);
    if size > COPY_BYTES_MAX {
        return Err(Errno::FBIG);
    }
    // One byte more, to see that there is no more.
    let mut content = vec![0; size + 1];
    let mut length = 0;
    loop {
        let rest = content.get_mut(length..).unwrap_or_default();
        if rest.is_empty() {
            return Err(Errno::FBIG);
        }
        match rustix::io::read(&file, rest)? {
            0 => break,
            count => length += count,
        }
    }
    content.truncate(length);
    Ok(content)
}

fn clone_tree(source: &Path) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(CWD, source, flags)
}

/// The same for a path that has no links; one at its end is taken as the link that it is.
fn clone_exactly(source: &Path) -> Result<OwnedFd, Errno> {
    let found = rustix::fs::openat2(
        CWD,
        source,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(&found, "", flags)
}

/// A view on its way: a new root, and what has to wait for the areas.
pub(crate) struct Building<'a> {
    root: OwnedFd,
    later: Vec<Prepared<'a>>,
}

/// Mounts what needs nobody else on a new root. The areas are made by another process meanwhile.
pub(crate) fn build(prepared: Vec<Prepared<'_>>) -> Result<Building<'_>, Failed> {
    let root = new_root().map_err(Failed::at(Step::Root))?;
    // Any directory that every system has does as the place to stand on while turning around.
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&root, "", CWD, "/proc", flags).map_err(Failed::at(Step::Root))?;
    // What lies in an area comes after it.
    let areas: Vec<_> = prepared
        .iter()
        .filter(|item| matches!(item.entry, Entry::Area { .. }))
        .map(|item| item.entry.at())
        .collect();
    let (later, now): (Vec<_>, Vec<_>) = prepared
        .into_iter()
        .partition(|item| areas.iter().any(|area| item.entry.at().starts_with(area)));
    let mut points = Points::of(&root);
    for item in now {
        place(&mut points, item, None, &mut Vec::new())?;
    }
    Ok(Building { root, later })
}

/// Mounts the areas and what lies in them, and makes the new root this process's only one.
pub(crate) fn finish(building: Building<'_>, areas: &Areas) -> Result<(), Failed> {
    let Building { root, later } = building;
    let mut mounted = Vec::new();
    let mut points = Points::of(&root);
    for item in later {
        place(&mut points, item, Some(areas), &mut mounted)?;
    }
    pivot(&root).map_err(Failed::at(Step::Pivot))?;
    let sealed = Attributes {
        read_only: true,
        no_suid: true,
        no_dev: true,
        no_exec: true,
    };
    restrict(&root, sealed, false).map_err(Failed::io(Step::Root))
}

fn new_root() -> Result<OwnedFd, Errno> {
    // The root holds only mount points, links and copies of small files, and is read-only before the program starts.
    const ROOT_BYTES: &str = "16m";
    const ROOT_INODES: &str = "4096";
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "mode", "755")?;
    rustix::mount::fsconfig_set_string(&context, "size", ROOT_BYTES)?;
    rustix::mount::fsconfig_set_string(&context, "nr_inodes", ROOT_INODES)?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn place(
    points: &mut Points<'_>,
    item: Prepared<'_>,
    areas: Option<&Areas>,
    mounted: &mut Vec<AreaMount>,
) -> Result<(), Failed> {
    let at = item.entry.at();
    points.leave(&at);
    let root = points.root;
    let point = Failed::at(Step::MountPoint);
    match item.entry {
        // In an area it is the subject's own: a session before this one may have put something else in its place, or left no
        // room for it. That is no reason not to start, or no session could ever mend it.
        Entry::Directory { .. } if areas.is_some() => {
            let _ = points.directory(&at);
            Ok(())
        }
        Entry::Directory { .. } => points.directory(&at).map(drop).map_err(point),
        Entry::Link { to, .. } => {
            let (parent, name) = points.parent(&at).map_err(&point)?;
            rustix::fs::symlinkat(to, parent, name).map_err(point)
        }
        Entry::File { content, .. } => {
            let (parent, name) = points.parent(&at).map_err(&point)?;
            write_file(parent, name, content).map(drop).map_err(point)
        }
        Entry::Copy { .. } => {
            let (parent, name) = points.parent(&at).map_err(&point)?;
            write_file(parent, name, &item.content).map(drop).map_err(point)
        }
        Entry::Bind { .. } | Entry::Device { .. } => {
            let Some(mount) = item.mount else { return Ok(()) };
            let target = if item.is_directory {
                points.directory(&at).map_err(&point)?
            } else {
                let (parent, name) = points.parent(&at).map_err(&point)?;
                match write_file(parent, name, &[]) {
                    // In an area a session before this one has made it; the file server has seen that it is a file.
                    Err(Errno::EXIST) if areas.is_some() => {
                        open_beneath(parent, Path::new(name), OFlags::PATH | OFlags::NOFOLLOW)
                    }
                    made => made,
                }
                .map_err(&point)?
            };
            attach_to(&mount, &target)?;
            if item.is_directory {
                points.mounted(at, mount);
            }
            Ok(())
        }
        Entry::Pin { .. } => item
            .mount
            .map_or(Ok(()), |mount| unless_out_of_reach(attach(&points.inside(&at), &mount))),
        Entry::PinArea { access, .. } => unless_out_of_reach(pin_area(&points.inside(&at), *access)),
        Entry::Hide { .. } => unless_out_of_reach(hide(root, &points.inside(&at))),
        Entry::Area { area, .. } => {
            let target = points.directory(&at).map_err(point)?;
            let Some(areas) = areas else { return Ok(()) };
            let mount = match area {
                AreaMount::Tmp => &areas.tmp,
                AreaMount::State => &areas.state,
                AreaMount::Shm => &areas.shm,
                AreaMount::Work => areas.work.as_ref().ok_or(Failed {
                    step: Step::Mount,
                    errno: Errno::NODEV.raw_os_error(),
                })?,
            };
            if mounted.contains(area) {
                // A second place for it: moving the mount again would take it away from the first.
                let flags =
                    OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
                let again = rustix::mount::open_tree(mount, "", flags).map_err(Failed::at(Step::Mount))?;
                return attach_to(again, &target);
            }
            mounted.push(*area);
            attach_to(mount, &target)?;
            if *area == AreaMount::Work {
                let top = mount.try_clone().map_err(Failed::io(Step::Mount))?;
                points.mounted(at, top);
            }
            Ok(())
        }
        Entry::Terminals => {
            let target = points.directory(&at).map_err(point)?;
            let mount = terminals().map_err(Failed::at(Step::Terminals))?;
            attach_to(mount, &target)
        }
        Entry::Processes => {
            let target = points.directory(&at).map_err(point)?;
            let mount = processes().map_err(Failed::at(Step::Processes))?;
            attach_to(&mount, &target)?;
            // To the settings of its IPC namespace the kernel lets whoever is the user that made it: the program too.
            let target = open_beneath(&mount, Path::new("sys"), OFlags::PATH | OFlags::NOFOLLOW)
                .map_err(Failed::at(Step::Processes))?;
            let flags =
                OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
            let settings = rustix::mount::open_tree(&target, "", flags).map_err(Failed::at(Step::Processes))?;
            let sealed = Attributes {
                read_only: true,
                no_suid: true,
                no_dev: true,
                no_exec: true,
            };
            restrict(&settings, sealed, false).map_err(Failed::io(Step::Processes))?;
            attach_to(settings, &target)
        }
    }
}

/// What lies in a directory that even this process may not enter is out of the program's reach: it is the same user, with
/// less.
fn unless_out_of_reach(result: Result<(), Failed>) -> Result<(), Failed> {
    result.or_else(|failed| {
        if failed.errno == Errno::ACCESS.raw_os_error() {
            Ok(())
        } else {
            Err(failed)
        }
    })
}

fn terminals() -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen("devpts", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "ptmxmode", "0666")?;
    rustix::mount::fsconfig_set_string(&context, "mode", "620")?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn processes() -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Mounts a part of an area over itself.
fn pin_area(place: &Inside<'_>, access: Access) -> Result<(), Failed> {
    let failed = Failed::at(Step::Mount);
    let target = place.open().map_err(&failed)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let part = rustix::mount::open_tree(&target, "", flags).map_err(&failed)?;
    let attributes = Attributes {
        read_only: access == Access::ReadOnly,
        no_suid: true,
        no_dev: true,
        no_exec: false,
    };
    restrict(&part, attributes, false).map_err(Failed::io(Step::Mount))?;
    attach_to(part, &target)
}

/// Covers a directory by an empty read-only one, a file by an empty read-only one.
fn hide(root: &OwnedFd, place: &Inside<'_>) -> Result<(), Failed> {
    let failed = Failed::at(Step::Mount);
    let target = match place.open() {
        // Not there: nothing to hide.
        Err(Errno::NOENT) => return Ok(()),
        other => other.map_err(&failed)?,
    };
    let stat = rustix::fs::fstat(&target).map_err(&failed)?;
    let empty = new_root().map_err(&failed)?;
    let sealed = Attributes {
        read_only: true,
        no_suid: true,
        no_dev: true,
        no_exec: true,
    };
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        restrict(&empty, sealed, false).map_err(Failed::io(Step::Mount))?;
        return attach_to(&empty, &target);
    }
    write_file(&empty, OsStr::new("empty"), &[]).map_err(&failed)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    // A part of a detached tree cannot be cloned before Linux 6.15: attach the tree, clone the part, detach the tree.
    let stage = Path::new("/.stage");
    let stage_point = make_directory(root, stage).map_err(&failed)?;
    let move_flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(&empty, "", &stage_point, "", move_flags).map_err(&failed)?;
    let file = rustix::mount::open_tree(&empty, "empty", flags).map_err(&failed)?;
    restrict(&file, sealed, false).map_err(Failed::io(Step::Mount))?;
    let result = attach_to(&file, &target);
    rustix::process::fchdir(&empty).map_err(&failed)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(&failed)?;
    rustix::process::chdir("/").map_err(&failed)?;
    rustix::fs::unlinkat(root, ".stage", AtFlags::REMOVEDIR).map_err(&failed)?;
    result
}

fn attach(place: &Inside<'_>, mount: impl AsFd) -> Result<(), Failed> {
    let target = place.open().map_err(Failed::at(Step::Mount))?;
    attach_to(mount, &target)
}

fn attach_to(mount: impl AsFd, target: &OwnedFd) -> Result<(), Failed> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", target, "", flags).map_err(Failed::at(Step::Mount))
}

fn write_file(parent: &OwnedFd, name: &OsStr, content: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(parent, name.as_bytes(), flags, Mode::from_raw_mode(0o444))?;
    let mut rest = content;
    while !rest.is_empty() {
        let count = rustix::io::write(&file, rest)?;
        rest = rest.get(count..).unwrap_or_default();
    }
    Ok(file)
}

fn pivot(root: &OwnedFd) -> Result<(), Errno> {
    rustix::process::fchdir(root)?;
    // The old root goes on top of the new one, and off again: pivot_root(2), "pivot_root(".", ".")".
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}
