// SPDX-License-Identifier: Apache-2.0
//
// The operations of an address space, as statistics and the lock map name them.

/// What a request for the space lock is made for.
public enum OperationKind: UInt8, CaseIterable, Sendable, Codable {
  /// `mmap`.
  case map
  /// `munmap`.
  case unmap
  /// `mprotect`.
  case protect
  /// A fault of an access: a page is made, copied or brought in.
  case fault
  /// `madvise` that throws pages away (`MADV_DONTNEED`).
  case dontNeed
  /// A look at mappings that needs the lock (listings and lookups do not).
  case query
  /// A recorded call that the product does not have, applied by its effect: see `AddressSpace.substitute`.
  case substitute
  /// Teardown of the space.
  case exit
  /// `mremap`.
  case remap
  /// `brk`.
  case setBreak
  /// A stack that a fault below it extends.
  case growStack
  /// Advice that changes flags of mappings, so that they split and merge (`madvise` under a write lock).
  case setAdvice
  /// Advice that acts on pages (`madvise` under a read lock), but for `dontNeed`.
  case advise
  /// `mlock`, `munlock`, `mlockall`, `munlockall`.
  case lockMemory
  /// Faults made ahead of accesses: `MAP_POPULATE`, `mlock`, `MADV_POPULATE_*`.
  case populate
  /// `mincore`.
  case residency
  /// `mseal`.
  case seal
  /// `mbind`.
  case setPolicy
  /// A special mapping that the owner of the space inserts.
  case insertSpecial
  /// Settings of the whole space: limits, markers, the opaque word.
  case configure
  /// A copy of the whole space.
  case fork
  /// Pages of a file that are gone go from the spaces that map them.
  case truncate
  /// `msync`.
  case synchronize
  /// Dirty pages of files go back to them: from the object to its spaces.
  case writeBack
  /// `remap_file_pages`.
  case remapPages
  /// Which pages were written to.
  case written
  /// Pages that keep their frames without a lock: copies between spaces.
  case pin

  /// The name in reports.
  public var name: String {
    switch self {
    case .map: "map"
    case .unmap: "unmap"
    case .protect: "protect"
    case .fault: "fault"
    case .dontNeed: "dontneed"
    case .query: "query"
    case .substitute: "substitute"
    case .exit: "exit"
    case .remap: "remap"
    case .setBreak: "break"
    case .growStack: "growstack"
    case .setAdvice: "setadvice"
    case .advise: "advise"
    case .lockMemory: "lock"
    case .populate: "populate"
    case .residency: "residency"
    case .seal: "seal"
    case .setPolicy: "setpolicy"
    case .insertSpecial: "special"
    case .configure: "configure"
    case .fork: "fork"
    case .truncate: "truncate"
    case .synchronize: "sync"
    case .writeBack: "writeback"
    case .remapPages: "remappages"
    case .written: "written"
    case .pin: "pin"
    }
  }
}
