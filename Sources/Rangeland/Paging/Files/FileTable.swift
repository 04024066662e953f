// SPDX-License-Identifier: Apache-2.0
//
// The file objects of one physical memory, and the spaces that map them.
//
// Guarantee: a file has one object, whoever opens it, from its first use until its last page has gone and what was
//   written to it has been written back; a new user meanwhile gets that object, or waits for its end.
// Mechanism: one latch. An object whose last reference has gone waits in a list until the operation that has dropped
//   it holds no lock any more; until then whoever looks for the file takes it up again.
// Cost: one latch for each mapping made of a file; nothing when pages are used.
// Source: Linux fs/inode.c, the inode cache.

import CRangeland
import Synchronization
import SystemPackage

final class FileTable: @unchecked Sendable {
  // Sendable: the objects are guarded by themselves, what leads to them by the latch.
  private struct State {
    var objects: [Key: Entry] = [:]
    var unused: ObjectRef?
    var spaces: [UInt64: WeakSpace] = [:]
    var nextNumber: UInt64 = 1
    /// What a listing that began before may still look at, with the epoch in which its object ended.
    var ended: [(epoch: UInt64, file: FileStateRef)] = []
  }

  private struct Key: Hashable {
    var device: UInt64
    var inode: UInt64
  }

  private enum Entry {
    case object(ObjectRef)
    /// Its pages are being written back for the last time.
    case ending
  }

  private struct WeakSpace {
    weak var space: AddressSpace?
  }

  private let state = Latched(State())
  /// Whether objects wait for their end: where spaces look without a reference. Written under the latch.
  let hasUnused: UnsafeMutablePointer<Atomic<Bool>>
  /// Objects. Written under the latch.
  private let count = Atomic<Int>(0)
  /// Grows when an object has ended.
  private let ends = EventCount()
  let writer = WriteBackThread()

  init() {
    hasUnused = .allocate(capacity: 1)
    hasUnused.initialize(to: Atomic(false))
  }

  // MARK: objects

  /// The object of a file, with one reference for the caller.
  ///
  /// - Parameter make: its state, if there is none yet. Runs under the latch: no input or output.
  func object(
    device: UInt64, inode: UInt64, _ arena: UnsafeMutablePointer<FrameArena>, _ context: Context,
    _ make: () -> FileStateRef
  ) throws(Errno) -> ObjectRef {
    let key = Key(device: device, inode: inode)
    while true {
      let event = ends.value
      // What is there and waits for its end, 0 = it ends now, 1 = no memory.
      let found: UInt = state.withLock { (state) in
        switch state.objects[key] {
        case .object(let object):
          // The latch keeps it from its end, whatever its count is.
          object.retain()
          return UInt(bitPattern: object)
        case .ending: return 0
        case nil:
          guard let fresh = MemoryObject.make(.file, identity: inode, arena, context) else {
            return 1
          }
          fresh.pointee.file = make()
          state.objects[key] = .object(fresh)
          count.add(1, ordering: .relaxed)
          return UInt(bitPattern: fresh)
        }
      }
      if found == 1 { throw .noMemory }
      if let object = ObjectRef(bitPattern: found) { return object }
      ends.wait(since: event)
    }
  }

  /// A number for an object that is no file.
  func newNumber() -> UInt64 {
    state.withLock { (state) in
      state.nextNumber += 1
      return state.nextNumber - 1
    }
  }

  /// Gives up what seems to be the last reference: `settle` ends the object when no lock is held.
  func releaseLast(_ object: ObjectRef) {
    state.withLock { (state) in
      let file = object.pointee.file.unsafelyUnwrapped
      // Releases what its user did to `takeUnused`.
      let old = object.pointee.references.subtract(1, ordering: .acquiringAndReleasing).oldValue
      precondition(old > 0, "FileTable: the object is free")
      if old > 1 { return }
      if file.pointee.isUnused { return }
      file.pointee.isUnused = true
      file.pointee.nextUnused = state.unused
      state.unused = object
      hasUnused.pointee.store(true, ordering: .relaxed)
    }
  }

  /// Ends what waits for it. Holding no lock, and not pinned: pages are written back.
  @inline(__always)
  func settle(_ context: Context) {
    if hasUnused.pointee.load(ordering: .relaxed) { settleSlow(context) }
  }

  @inline(never)
  private func settleSlow(_ context: Context) {
    LockOrder.assertNothingHeld("input or output")
    while let object = takeUnused() {
      end(object, context)
      ends.signal()
    }
  }

  /// The next object that nobody has taken up again.
  private func takeUnused() -> ObjectRef? {
    let bits: UInt = state.withLock { (state) in
      while let object = state.unused {
        let file = object.pointee.file.unsafelyUnwrapped
        state.unused = file.pointee.nextUnused
        file.pointee.isUnused = false
        // Acquires what its last user did.
        if object.pointee.references.load(ordering: .acquiring) == 0 {
          let source = file.pointee.source._withUnsafeGuaranteedRef { ($0.device, $0.inode) }
          state.objects[Key(device: source.0, inode: source.1)] = .ending
          return UInt(bitPattern: object)
        }
      }
      hasUnused.pointee.store(false, ordering: .relaxed)
      return 0
    }
    return ObjectRef(bitPattern: bits)
  }

  private func end(_ object: ObjectRef, _ context: Context) {
    let before = LockMap.enter(.writeBack)
    defer { LockMap.leave(before) }
    let file = object.pointee.file.unsafelyUnwrapped
    let source = file.pointee.source.takeUnretainedValue()
    let failure = object.writeBack(0..<UInt64.max, context)
    object.releasePages(context)
    _ = state.withLock { (state) in
      state.objects.removeValue(forKey: Key(device: source.device, inode: source.inode))
    }
    count.subtract(1, ordering: .relaxed)
    source.end(failure)
    object.retire(context)
    let epoch = context.pointee.epoch.pointee.load(ordering: .sequentiallyConsistent)
    state.withLock { (state) in
      // Three epochs, as for nodes: see Reclaimer.swift.
      while let oldest = state.ended.first, oldest.epoch + 3 <= epoch {
        Self.destroy(oldest.file)
        state.ended.removeFirst()
      }
      state.ended.append((epoch, file))
    }
  }

  private static func destroy(_ file: FileStateRef) {
    file.pointee.source.release()
    file.deinitialize(count: 1)
    file.deallocate()
  }

  deinit {
    state.withLock { (state) in
      precondition(state.objects.isEmpty, "FileTable: a file is left")
      for ended in state.ended { Self.destroy(ended.file) }
    }
    hasUnused.deinitialize(count: 1)
    hasUnused.deallocate()
  }

  /// Calls `body` for each object, with a reference while it runs.
  func forEachObject(_ context: Context, _ body: (ObjectRef) -> Void) {
    if count.load(ordering: .relaxed) == 0 { return }
    let all: [UInt] = state.withLock { (state) in
      state.objects.values.compactMap {
        guard case .object(let object) = $0 else { return nil }
        object.retain()
        return UInt(bitPattern: object)
      }
    }
    for bits in all {
      let object = ObjectRef(bitPattern: bits)!
      body(object)
      object.release(context)
    }
    settle(context)
  }

  // MARK: spaces

  /// The space maps files from now on. It is found until it ends.
  func register(_ space: AddressSpace) {
    let number = space.identity
    state.withLock { (state) in
      if state.spaces[number] == nil {
        state.spaces[number] = WeakSpace(space: space)
      }
    }
  }

  func unregister(_ number: UInt64) {
    _ = state.withLock { (state) in state.spaces.removeValue(forKey: number) }
  }

  /// The space of that number; `nil` = it has ended, or is about to.
  func space(_ number: UInt64) -> AddressSpace? {
    state.withLock { (state) in state.spaces[number]?.space }
  }
}
