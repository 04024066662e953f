// SPDX-License-Identifier: Apache-2.0
//
// What is counted.

/// Sizes in pages, as differences from an empty script's.
public struct VerifySizes: Sendable, Hashable, CustomStringConvertible {
  /// `VmSize`.
  public var virtual = 0
  /// `VmData`.
  public var data = 0
  /// `VmExe` + `VmLib`.
  public var executable = 0
  /// `VmStk`.
  public var stack = 0
  /// `VmLck`.
  public var locked = 0
  /// 1 = what lies outside the windows is locked too; it is not in `locked`.
  public var outsideLocks = 0
  /// `RssAnon`.
  public var residentAnonymous = 0
  /// `RssShmem`. The kernel maps pages around a shared page that is read, so it may have more.
  public var residentShared = 0
  /// `RssFile`. The kernel maps pages around one that is read, and takes clean ones out when it likes: its figure says
  /// nothing of the other side's.
  public var residentFile = 0
  /// `map_count`: no pages, but mappings.
  public var mappings = 0

  public var description: String {
    "VmSize \(virtual) VmData \(data) VmExe+VmLib \(executable) VmStk \(stack) VmLck \(locked)"
      + (outsideLocks != 0 ? " and all else " : " ")
      + "RssAnon \(residentAnonymous) RssShmem \(residentShared) RssFile \(residentFile) pages, "
      + "\(mappings) mappings"
  }

  static func - (all: VerifySizes, part: VerifySizes) -> VerifySizes {
    var rest = all
    for path in Self.paths { rest[keyPath: path] -= part[keyPath: path] }
    return rest
  }

  /// The same, with the locks of what lies outside the windows told apart, if those are locked: so many pages that
  /// nobody locks as many in the windows.
  func withoutLocks(outside: Int) -> VerifySizes {
    if outside == 0 || locked < outside { return self }
    var sizes = self
    sizes.locked -= outside
    sizes.outsideLocks = 1
    return sizes
  }

  private static var paths: [WritableKeyPath<VerifySizes, Int>] {
    [
      \.virtual, \.data, \.executable, \.stack, \.locked, \.residentAnonymous, \.residentShared,
      \.residentFile, \.mappings,
    ]
  }
}
