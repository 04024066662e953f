// SPDX-License-Identifier: Apache-2.0
//
// Small file systems for tests: in memory, and ext4 in a temporary file behind a loop device.
//
// Guarantee: when this process ends, in whatever way, nothing of them is left but, at worst, what it did in the instant
//   between mounting and detaching.
// Mechanism: a file system is mounted, its folder opened, and the mount detached at once: it has no place any more, and
//   the kernel ends it, its loop device and its unlinked image when the last descriptor has gone.

import Glibc
import SystemPackage
import Testing

final class SmallDisk {
  enum Kind: String, Sendable {
    case tmpfs, ext4
  }

  struct Refusal: Error, CustomStringConvertible {
    var description: String
  }

  /// Those that this process may mount here; why it may not mount the others is printed.
  static let kinds: [Kind] = [.tmpfs, .ext4].filter { (kind: Kind) in
    do throws(Refusal) {
      _ = try SmallDisk(kind)
      return true
    } catch {
      print("SmallDisk: tests go without \(kind.rawValue): \(error)")
      return false
    }
  }

  /// Where it was mounted.
  let place: String
  /// The folder at its top.
  private let folder: Int32
  /// Of the image, while there is one; empty for tmpfs.
  let image: String

  /// - Parameter kind: tmpfs has room for 60 pages, ext4 for some thousands.
  init(_ kind: Kind) throws(Refusal) {
    let place = try Self.temporary("rangeland-disk", mkdtemp)
    defer { rmdir(place) }
    let name: String
    switch kind {
    case .tmpfs:
      name = ""
      if mount("tmpfs", place, "tmpfs", 0, "size=256k") != 0 {
        throw Refusal(description: "mount: \(Errno(rawValue: errno))")
      }
    case .ext4:
      // Spares a machine without loop devices the image.
      if access("/dev/loop-control", R_OK | W_OK) != 0 {
        throw Refusal(description: "/dev/loop-control: \(Errno(rawValue: errno))")
      }
      let image = try Self.temporary("rangeland-image") { template in
        let descriptor = mkstemp(template)
        if descriptor < 0 { return nil }
        let result = ftruncate(descriptor, 16 << 20)
        close(descriptor)
        return result == 0 ? template : nil
      }
      defer { unlink(image) }
      // With a journal, as disks have it; nothing is kept for root.
      try Self.command("mkfs.ext4", ["-q", "-F", "-b", "4096", "-m", "0", "-J", "size=4", image])
      try Self.command("mount", ["-t", "ext4", "-o", "loop", image, place])
      name = image
    }
    folder = Glibc.open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    let failure = errno
    umount2(place, Int32(MNT_DETACH))
    (self.place, image) = (place, name)
    if folder < 0 { throw Refusal(description: "\(place): \(Errno(rawValue: failure))") }
  }

  deinit { close(folder) }

  // MARK: files

  func open(_ name: String) throws(Errno) -> FileDescriptor {
    let descriptor = openat(folder, name, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    if descriptor < 0 { throw Errno(rawValue: errno) }
    return FileDescriptor(rawValue: descriptor)
  }

  /// Fills the disk but for so many pages; `makeRoom` gives back 40 more.
  func fill(leaving pages: Int) throws {
    let ballast = try open("ballast")
    defer { try? ballast.close() }
    try ballast.writeAll([UInt8](repeating: 1, count: 40 * 4096))
    try #require(fsync(ballast.rawValue) == 0)
    let filler = try open("filler")
    defer { try? filler.close() }
    let piece = [UInt8](repeating: 2, count: 4096)
    var size: off_t = 0
    // What a file system sets apart for a write it may give back when that has been done.
    var isFull = false
    while !isFull {
      isFull = true
      while pwrite(filler.rawValue, piece, piece.count, size) == piece.count {
        size += off_t(piece.count)
        isFull = false
      }
      try #require(errno == ENOSPC)
      try #require(fsync(filler.rawValue) == 0)
    }
    try #require(ftruncate(filler.rawValue, size - off_t(pages * 4096)) == 0)
    // Freed blocks are room when the journal has them.
    try #require(fsync(filler.rawValue) == 0)
  }

  func makeRoom() throws {
    try #require(unlinkat(folder, "ballast", 0) == 0)
    try #require(fsync(folder) == 0)
  }

  // MARK: making them

  private static func temporary(
    _ name: String, _ make: (UnsafeMutablePointer<CChar>) -> UnsafeMutablePointer<CChar>?
  ) throws(Refusal) -> String {
    var template = Array("/tmp/\(name)-XXXXXX".utf8CString)
    let isMade = template.withUnsafeMutableBufferPointer { make($0.baseAddress!) != nil }
    if !isMade { throw Refusal(description: "/tmp: \(Errno(rawValue: errno))") }
    return template.withUnsafeBytes { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
  }

  /// Runs a program to its end.
  private static func command(_ name: String, _ arguments: [String]) throws(Refusal) {
    let said = try temporary("rangeland-said") { template in
      let descriptor = mkstemp(template)
      if descriptor < 0 { return nil }
      close(descriptor)
      return template
    }
    defer { unlink(said) }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 1, said, O_WRONLY, 0)
    posix_spawn_file_actions_adddup2(&actions, 1, 2)
    var strings = ([name] + arguments).map { strdup($0) } + [nil]
    defer { for string in strings { free(string) } }
    var child: pid_t = 0
    // Not everyone's PATH has what is for administrators.
    let places = ["/usr/sbin/", "/sbin/", "/usr/bin/", "/bin/"].map { $0 + name }
    let program = places.first { access($0, X_OK) == 0 } ?? name
    let result = posix_spawnp(&child, program, &actions, nil, &strings, environ)
    if result != 0 { throw Refusal(description: "\(name): \(Errno(rawValue: result))") }
    var status: Int32 = 0
    while waitpid(child, &status, 0) < 0 && errno == EINTR {}
    if status == 0 { return }
    var text = [UInt8](repeating: 0, count: 4096)
    let file = try? FileDescriptor.open(said, .readOnly)
    defer { try? file?.close() }
    let count = (try? text.withUnsafeMutableBytes { try file?.read(into: $0) }) ?? 0
    let line = String(decoding: text[..<count], as: UTF8.self).split(separator: "\n")
    throw Refusal(description: "\(name) ended with \(status): \(line.joined(separator: " "))")
  }
}
