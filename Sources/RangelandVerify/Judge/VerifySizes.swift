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
  /// `RssAnon`.
  public var residentAnonymous = 0
  /// `RssShmem`. The kernel maps pages around a shared page that is read, so it may have more.
  public var residentShared = 0
  /// `map_count`: no pages, but mappings.
  public var mappings = 0

  public var description: String {
    "VmSize \(virtual) VmData \(data) VmExe+VmLib \(executable) VmStk \(stack) VmLck \(locked) "
      + "RssAnon \(residentAnonymous) RssShmem \(residentShared) pages, \(mappings) mappings"
  }

  static func - (all: VerifySizes, part: VerifySizes) -> VerifySizes {
    var rest = all
    for path in Self.paths { rest[keyPath: path] -= part[keyPath: path] }
    return rest
  }

  private static var paths: [WritableKeyPath<VerifySizes, Int>] {
    [
      \.virtual, \.data, \.executable, \.stack, \.locked, \.residentAnonymous, \.residentShared,
      \.mappings,
    ]
  }
}
