// SPDX-License-Identifier: Apache-2.0
//
// The file objects of a space and its forks, by the number of the file.
//
// Guarantee: all mappings of one file that exist at one time are of one object, so that pieces merge when
//   their offsets continue, in whatever order they were made.
// Mechanism: 64 chains under one latch. They hold no reference: the last one takes the object out.
// Cost: one latch for each file mapping made; nothing when pages or VMAs are used.
// Source: Linux: the inode's `struct address_space`, found through the inode hash.

import RangeLocks
import Synchronization

typealias FileObjectsRef = UnsafeMutablePointer<FileObjects>

struct FileObjects: ~Copyable {
  /// Guards the chains. Rank: innermost, nothing is taken inside.
  let latch = Latch()
  /// Spaces that use them.
  let references = Atomic<Int>(1)
  /// Immutable pointer.
  let chains: UnsafeMutablePointer<ObjectRef?>

  static var chainCount: Int { 64 }

  static func make() -> FileObjectsRef {
    let files = FileObjectsRef.allocate(capacity: 1)
    files.initialize(to: FileObjects())
    return files
  }

  private init() {
    chains = .allocate(capacity: Self.chainCount)
    chains.initialize(repeating: nil, count: Self.chainCount)
  }

  deinit {
    for i in 0..<Self.chainCount { precondition(chains[i] == nil, "FileObjects: a file is left") }
    chains.deallocate()
  }
}

extension UnsafeMutablePointer where Pointee == FileObjects {
  /// The object of file `number`, with one reference for the caller; `nil` without memory.
  func object(
    _ number: UInt64, _ arena: UnsafeMutablePointer<FrameArena>, _ context: Context
  ) -> ObjectRef? {
    if let found = find(number) { return found }
    guard let fresh = MemoryObject.make(.file, identity: number, arena, context) else {
      return nil
    }
    pointee.latch.lock(.innermost)
    let other = findLatched(number)
    if other == nil {
      fresh.pointee.files = self
      fresh.pointee.nextFile = chain(number).pointee
      chain(number).pointee = fresh
    }
    pointee.latch.unlock(.innermost)
    guard let other else { return fresh }
    // Another thread was first; nobody has seen ours.
    fresh.release(context)
    return other
  }

  private func find(_ number: UInt64) -> ObjectRef? {
    pointee.latch.lock(.innermost)
    defer { pointee.latch.unlock(.innermost) }
    return findLatched(number)
  }

  private func findLatched(_ number: UInt64) -> ObjectRef? {
    var next = chain(number).pointee
    while let object = next {
      // One whose last reference has gone is on its way out of the chain.
      if object.pointee.identity == number, object.retainIfUsed() { return object }
      next = object.pointee.nextFile
    }
    return nil
  }

  /// Takes an object out whose last reference has gone.
  func remove(_ object: ObjectRef) {
    pointee.latch.lock(.innermost)
    defer { pointee.latch.unlock(.innermost) }
    let chain = chain(object.pointee.identity)
    if chain.pointee == object {
      chain.pointee = object.pointee.nextFile
      return
    }
    var before = chain.pointee
    while let current = before, current.pointee.nextFile != object {
      before = current.pointee.nextFile
    }
    before!.pointee.nextFile = object.pointee.nextFile
  }

  private func chain(_ number: UInt64) -> UnsafeMutablePointer<ObjectRef?> {
    pointee.chains + Int(truncatingIfNeeded: number % UInt64(FileObjects.chainCount))
  }

  /// For a fork, which has the same files.
  func retain() { pointee.references.add(1, ordering: .relaxed) }

  /// One space less, which maps no file any more; with the last the chains are given back.
  func release() {
    guard pointee.references.subtract(1, ordering: .acquiringAndReleasing).newValue == 0 else {
      return
    }
    deinitialize(count: 1)
    deallocate()
  }
}
