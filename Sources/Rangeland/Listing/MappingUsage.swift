// SPDX-License-Identifier: Apache-2.0
//
// What a mapping has in memory, as /proc/pid/smaps tells it.

/// Resident pages of one mapping, in bytes.
public struct MappingUsage: Sendable, Hashable {
  /// In memory (`Rss`). The shared page of zeros and the pages of devices do not count.
  public var resident: UInt64 = 0
  /// The same, each page divided by the number of places that map it (`Pss`).
  public var proportional: UInt64 = 0
  /// The part of `proportional` that was written to (`Pss_Dirty`).
  public var proportionalDirty: UInt64 = 0
  /// Mapped elsewhere too, and not written to (`Shared_Clean`).
  public var sharedClean: UInt64 = 0
  /// Mapped elsewhere too, and written to (`Shared_Dirty`).
  public var sharedDirty: UInt64 = 0
  /// Mapped only here, and not written to (`Private_Clean`).
  public var privateClean: UInt64 = 0
  /// Mapped only here, and written to (`Private_Dirty`).
  public var privateDirty: UInt64 = 0
  /// Read or written through this mapping's page tables (`Referenced`).
  public var referenced: UInt64 = 0
  /// Belongs to no file and no object (`Anonymous`).
  public var anonymous: UInt64 = 0
  /// Released by `Advice.free` and not written to since (`LazyFree`).
  public var lazilyFreed: UInt64 = 0

  /// Linux's divisor of a byte, so that many small parts add up (`PSS_SHIFT`).
  private static var fraction: UInt64 { 12 }

  mutating func add(_ entry: PageTableEntry, mappedAt places: UInt64) {
    let size = Address.pageSize
    // A page that is anonymous was written, or it would be the page of zeros; unless it was released since.
    let isDirty = entry.isDirty || (entry.kind == .anonymous && !entry.isLazilyReleased)
    if entry.isLazilyReleased { lazilyFreed += size }
    resident += size
    if entry.kind == .anonymous { anonymous += size }
    if entry.isAccessed || isDirty { referenced += size }
    let part = (size << Self.fraction) / places
    proportional += part
    if isDirty { proportionalDirty += part }
    switch (places > 1, isDirty) {
    case (true, true): sharedDirty += size
    case (true, false): sharedClean += size
    case (false, true): privateDirty += size
    case (false, false): privateClean += size
    }
  }

  /// After the last page: the parts become bytes.
  mutating func finish() {
    proportional >>= Self.fraction
    proportionalDirty >>= Self.fraction
  }
}
