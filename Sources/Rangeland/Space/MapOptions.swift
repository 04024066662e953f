// SPDX-License-Identifier: Apache-2.0
//
// What else a caller asks of a new mapping.

/// Further properties of a mapping (Linux `MAP_*`).
public struct MapOptions: OptionSet, Sendable, Hashable {
  public let rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// A stack: an access below it extends it, up to `Limits.stack`, and nothing is placed in the 256 pages below it
  /// (`MAP_GROWSDOWN`). Private memory only.
  @inlinable public static var growsDown: MapOptions { MapOptions(rawValue: 1) }
  /// Where the space chooses, it chooses between 1 and 2 GiB (`MAP_32BIT`).
  @inlinable public static var below2GiB: MapOptions { MapOptions(rawValue: 2) }
  /// Its pages are not promised: see `Overcommit` (`MAP_NORESERVE`).
  @inlinable public static var noReserve: MapOptions { MapOptions(rawValue: 4) }
  /// Locked, and its pages brought in, as far as they can be (`MAP_LOCKED`): see `lockMemory`.
  @inlinable public static var locked: MapOptions { MapOptions(rawValue: 16) }
  /// Its pages are brought in, as far as they can be (`MAP_POPULATE`).
  @inlinable public static var populate: MapOptions { MapOptions(rawValue: 32) }
  /// Holds the stack of a thread: never pages of more than 4 KiB (`MAP_STACK`).
  @inlinable public static var stack: MapOptions { MapOptions(rawValue: 8) }
}
