// SPDX-License-Identifier: Apache-2.0
//
// How often `.linux` places a mapping where the kernel placed it.

/// The calls of a recording that left the address to the kernel, placed again by `Placement.linux`.
public struct PlacementAgreement: Sendable {
  /// What such a call asked for.
  public enum Request: String, CaseIterable, Sendable {
    case anywhere = "mmap without an address"
    case hint = "mmap with a wish"
    case below2GiB = "mmap below 2 GiB"
    case move = "mremap that may move"
  }

  /// Why an address differs, as far as the recording tells.
  public enum Reason: String, CaseIterable, Sendable {
    case beside = "another thread's call was under way: their order is a conclusion"
    case passedGap = "the kernel passed over a gap: something is there that the recording lacks"
    case otherGap = "the kernel used a place that is none here, or lies above the base"
  }

  /// How many of a kind there were.
  public struct Count: Sendable {
    public var asked = 0
    /// Placed at the address that the kernel answered.
    public var agreed = 0
  }

  public internal(set) var counts: [Request: Count] = [:]
  /// Of those that agreed: mappings of files of 2 MiB and more, where the file system aligns to huge pages, as ext4, XFS and
  /// Btrfs do.
  public internal(set) var alignedByFileSystem = 0
  public internal(set) var reasons: [Reason: Int] = [:]
  /// The first few that differ, in words.
  public internal(set) var examples: [String] = []
  /// Recorded calls that the space could not follow: what comes after them is placed in another layout.
  public internal(set) var unfollowed = 0
  /// The address below which the kernel places, as concluded from the recording; nil = it has no mapping up there.
  public internal(set) var base: UInt64?
  /// Why nothing was placed; nil if it was.
  public internal(set) var problem: String?

  static let exampleLimit = 5

  public var asked: Int { counts.values.reduce(0) { $0 + $1.asked } }
  public var agreed: Int { counts.values.reduce(0) { $0 + $1.agreed } }
}
