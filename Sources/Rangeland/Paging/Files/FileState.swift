// SPDX-License-Identifier: Apache-2.0
//
// What an object that is a file has beside its pages and mappings.

import Synchronization
import SystemPackage

typealias FileStateRef = UnsafeMutablePointer<FileState>

struct FileState: ~Copyable {
  /// Whether pages are given zeroed to what fills them. Immutable.
  var fillsZeros: Bool { source._withUnsafeGuaranteedRef { $0.fillsZeros } }
  /// In bytes. Written while the gate is closed.
  let size: Atomic<UInt64>
  /// Whether pages differ from what stands behind them once they are written to. Immutable.
  let tracksDirty: Bool
  /// How its pages are counted. Immutable.
  let pageKind: PageKind
  /// Pages asked for at a time. Immutable.
  let readAhead: Int
  let gate: IOGate
  let errors = ErrorSequence()
  /// Pages that were written to and not written back.
  let dirtyPages = Atomic<Int>(0)
  /// Mappings that were ever made. Grows under the object's latch.
  let mappingsMade = Atomic<UInt64>(0)
  /// One reference each; the table outlives its objects.
  let source: Unmanaged<FileSource>
  let table: Unmanaged<FileTable>
  /// Next of the table's list. Guarded by its latch.
  var nextUnused: ObjectRef?
  var isUnused = false

  static func make(
    _ source: FileSource, size: UInt64, pageKind: PageKind, table: FileTable
  ) -> FileStateRef {
    var tracksDirty = true
    if case .memory = source.backing { tracksDirty = false }
    let state = FileStateRef.allocate(capacity: 1)
    state.initialize(
      to: FileState(
        size: Atomic(size), tracksDirty: tracksDirty, pageKind: pageKind,
        readAhead: source.readAhead, source: Unmanaged.passRetained(source),
        table: Unmanaged.passUnretained(table)))
    return state
  }

  init(
    size: consuming Atomic<UInt64>, tracksDirty: Bool, pageKind: PageKind, readAhead: Int,
    source: Unmanaged<FileSource>, table: Unmanaged<FileTable>
  ) {
    self.size = size
    (self.tracksDirty, self.pageKind, self.readAhead) = (tracksDirty, pageKind, readAhead)
    (self.source, self.table) = (source, table)
    gate = IOGate(source)
  }

  /// Pages up to the end, the last one perhaps not full.
  @inline(__always)
  var pageCount: UInt64 {
    let bytes = size.load(ordering: .acquiring)
    return bytes >> 12 + (bytes & 4095 == 0 ? 0 : 1)
  }
}
