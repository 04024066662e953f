// SPDX-License-Identifier: Apache-2.0
//
// The files of the scripts: each side has its own copies, in folders for temporary files, without names.

import CRangeland
import Glibc
import SystemPackage

/// Files, and descriptors for them, that both sides have with the same contents.
///
/// Descriptors by number: 0 reads and writes the first file, 1 only reads it, 2 only writes it; 3 and 4 read and write,
/// and read, the second; 5 reads the third; 6 is a folder; 7 is no descriptor.
final class VerifyFiles {
  /// One side's.
  struct Side {
    /// The numbers that the calls of this side use.
    var descriptors: [Int32] = []
    /// By file: a descriptor of this process that reads and writes it.
    var own: [Int32] = []
    var inodes: [UInt64] = []

    /// The number of a file, from 1 on, by its inode; 0 = none of them.
    func number(_ inode: UInt64) -> Int { (inodes.firstIndex(of: inode) ?? -1) + 1 }
  }

  private(set) var kernel = Side()
  private(set) var subject = Side()
  /// What is to be given to the helper: a descriptor here, and its number there.
  private(set) var inherited: [(from: Int32, to: Int32)] = []
  private var all: [Int32] = []
  /// Whether a call on files was made since the kernel's had their first contents.
  var isUsed = true
  /// Whether the subject's are to get them.
  var needsReset = true

  static var descriptorCount: UInt64 { 8 }
  static var fileCount: Int { 3 }
  /// In the helper.
  static var firstInherited: Int32 { 100 }
  private static var noDescriptor: Int32 { 999 }

  /// Bytes of the files when a script begins.
  static let sizes: [UInt64] = [12 * 4096, 9 * 4096 + 700, 5 * 4096]

  init() throws(VerifyError) {
    let temporary = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    let memory = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : temporary
    kernel = try side([memory, temporary, temporary])
    subject = try side([memory, temporary, temporary])
    for (i, descriptor) in kernel.descriptors.enumerated() where descriptor != Self.noDescriptor {
      inherited.append((descriptor, Self.firstInherited + Int32(i)))
      kernel.descriptors[i] = Self.firstInherited + Int32(i)
    }
  }

  deinit { for descriptor in all { close(descriptor) } }

  private func side(_ folders: [String]) throws(VerifyError) -> Side {
    var side = Side()
    var paths: [String] = []
    for folder in folders {
      var template = Array((folder + "/rangeland-verify-XXXXXX").utf8CString)
      let descriptor = mkstemp(&template)
      if descriptor < 0 || fcntl(descriptor, F_SETFD, FD_CLOEXEC) < 0 {
        throw VerifyError("no file can be made in \(folder)")
      }
      all.append(descriptor)
      side.own.append(descriptor)
      paths.append(
        template.withUnsafeBytes { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) })
      var status = stat()
      fstat(descriptor, &status)
      side.inodes.append(UInt64(status.st_ino))
    }
    let modes: [(Int, Int32)] = [
      (0, O_RDWR), (0, O_RDONLY), (0, O_WRONLY), (1, O_RDWR), (1, O_RDONLY), (2, O_RDONLY),
    ]
    for (file, mode) in modes {
      let descriptor = open(paths[file], mode | O_CLOEXEC)
      if descriptor < 0 { throw VerifyError("\(paths[file]) cannot be opened") }
      all.append(descriptor)
      side.descriptors.append(descriptor)
    }
    let folder = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    all.append(folder)
    side.descriptors += [folder, Self.noDescriptor]
    for path in paths { unlink(path) }
    return side
  }

  /// The contents with which a script begins, by file.
  private static let first: [[UInt8]] = sizes.enumerated().map { file, size in
    var bytes = [UInt8](repeating: 0, count: Int(size))
    // Every page is another's.
    for i in stride(from: 0, to: bytes.count, by: 8) {
      bytes[i] = UInt8(1 + file * 64 + i / 4096)
      if i + 1 < bytes.count { bytes[i + 1] = UInt8(truncatingIfNeeded: i / 8) }
    }
    return bytes
  }

  /// Gives the files their first contents.
  static func reset(_ side: Side) throws(VerifyError) {
    for (descriptor, bytes) in zip(side.own, first) {
      let written = bytes.withUnsafeBytes {
        ftruncate(descriptor, 0) == 0 && pwrite(descriptor, $0.baseAddress, $0.count, 0) == $0.count
      }
      if !written { throw VerifyError("a file cannot be written: \(Errno(rawValue: errno))") }
    }
  }

  static func size(_ side: Side, _ file: Int) -> UInt64 {
    var status = stat()
    fstat(side.own[file], &status)
    return UInt64(status.st_size)
  }

  /// What the operating system has of a file.
  static func contents(_ side: Side, _ file: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: Int(size(side, file)))
    let count = bytes.withUnsafeMutableBytes { pread(side.own[file], $0.baseAddress, $0.count, 0) }
    return Array(bytes.prefix(max(0, count)))
  }

  /// How two contents differ; `nil` = not at all.
  static func difference(_ file: Int, _ expected: [UInt8], _ got: [UInt8]) -> (String, String)? {
    let isSame =
      expected.count == got.count
      && expected.withUnsafeBytes { expected in
        got.withUnsafeBytes {
          expected.isEmpty || memcmp(expected.baseAddress!, $0.baseAddress!, $0.count) == 0
        }
      }
    if isSame { return nil }
    if expected.count != got.count {
      return ("file \(file): \(expected.count) bytes", "\(got.count) bytes")
    }
    let at = zip(expected, got).enumerated().first { $0.element.0 != $0.element.1 }?.offset ?? 0
    return ("file \(file): byte \(hex(UInt64(at))) is \(expected[at])", "\(got[at])")
  }
}

extension VerifyCall {
  /// The descriptor of a call that has one, by its number in `VerifyFiles`.
  var descriptor: UInt64 {
    get { newLength }
    set { newLength = newValue }
  }

  /// The call as one side makes it.
  func with(_ side: VerifyFiles.Side) -> VerifyCall {
    guard kind.hasDescriptor, descriptor < VerifyFiles.descriptorCount else { return self }
    var call = self
    call.descriptor = UInt64(side.descriptors[Int(descriptor)])
    return call
  }
}

extension VerifyCall.Kind {
  /// Whether a call has a descriptor.
  var hasDescriptor: Bool { self == .mapFile || self == .truncate }

  /// Calls on files: not for several threads, whose files these are together.
  public static var ofFiles: [VerifyCall.Kind] {
    [.truncate, .mapFile, .msync, .remapFilePages]
  }
}

extension VerifySubject {
  /// Whether a file is mapped in a range.
  func mapsFile(_ start: UInt64, _ length: UInt64) -> Bool {
    let end = start.addingReportingOverflow(length)
    return mappings(start, end.overflow ? UInt64(1) << 47 : end.partialValue).contains {
      $0.file != 0
    }
  }
}
