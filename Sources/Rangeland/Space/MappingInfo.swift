// SPDX-License-Identifier: Apache-2.0
//
// What a caller sees of a VMA and of a space's size: values, true at the instant they were read.

/// A mapping as a line of `/proc/self/maps` would show it.
public struct MappingInfo: Sendable, Hashable, CustomStringConvertible {
  /// The addresses that the mapping covers.
  public var range: AddressRange
  /// Its rights.
  public var protection: Protection
  /// Who sees writes to it.
  public var sharing: Sharing
  /// Offset into what it maps, in pages; anonymous private memory: the page number at creation.
  public var pageOffset: UInt64
  /// The inode of a file, or the number of another `FileObject`; of a substituted file mapping the number that its owner
  /// gave; `nil` = no file.
  public var file: UInt64?
  /// The device of a file; 0 for others.
  public var device: UInt64 { source?.device ?? 0 }
  /// Where a file is now, with ` (deleted)` if it has no name any more; the name of another `FileObject`; `nil` = none.
  public var path: String? { source?.path }
  var source: FileSource?
  /// The name of a special mapping; `nil` for others.
  public var name: String?
  /// Of shared memory: a number that no other object of the process has while this one lives; `nil` for others.
  public var sharedObject: UInt64?
  /// Attributes by the two-letter names of Linux's `VmFlags`, in their order; `sd` is not told.
  public var flagNames: [String] { flags.listedNames }
  var flags: VMAFlags = []

  public var description: String {
    let rights =
      (protection.contains(.read) ? "r" : "-") + (protection.contains(.write) ? "w" : "-")
      + (protection.contains(.execute) ? "x" : "-") + (sharing == .shared ? "s" : "p")
    let name = (path ?? self.name).map { " \($0)" } ?? file.map { " file:\($0)" } ?? ""
    return
      "\(String(range.start, radix: 16))-\(String(range.end, radix: 16)) \(rights) "
      + "\(String(pageOffset, radix: 16))\(name)"
  }
}

/// How much a space maps and uses, in pages. Exact while no operation runs.
public struct SpaceUsage: Sendable, Hashable {
  /// Mappings (Linux `map_count`).
  public var mappings = 0
  /// All mapped pages (`VmSize`).
  public var virtualPages = 0
  /// Private writable pages (`VmData`).
  public var dataPages = 0
  /// Executable, not writable pages (`VmExe` + `VmLib`).
  public var executablePages = 0
  /// Pages of locked mappings (`VmLck`).
  public var lockedPages = 0
  /// Pages whose memory is promised (`Committed_AS`, of this space): see `Overcommit`.
  public var promisedPages = 0
  /// Stack pages (`VmStk`).
  public var stackPages = 0
  /// Resident anonymous pages (`RssAnon`); the shared zero page is not counted.
  public var residentAnonymousPages = 0
  /// Resident pages of files (`RssFile`).
  public var residentFilePages = 0
  /// Resident pages of shared anonymous memory (`RssShmem`).
  public var residentSharedPages = 0
  /// The largest resident set so far (`VmHWM`): to the page where one thread uses the space, else to 128 pages for each
  /// other one.
  public var peakResidentPages = 0
}
