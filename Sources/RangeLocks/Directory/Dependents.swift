// SPDX-License-Identifier: Apache-2.0
//
// Those that wait for an entry: a stack in one word of the entry, through the waiters' own blocks.
//
// Guarantee: a waiting request is on one stack, and is taken from it once. Requests that gave up do not pile up on the
// stack of a hold that lasts.
// Mechanism: who pushes has a latch of a shard in which the entry is linked, or is the entry's owner. Whoever takes,
// takes the whole stack. The owner does so when nobody can push any more, or with all home latches of the entry. Every
// `pushesBetween`th push looks through the stack and lets go of those that gave up: it takes the stack, too, and puts
// the others back before it gives its latch away, so the owner never finds a stack that is in somebody's hands.
// Cost: a compare-and-swap to push; to look through, a walk.

import Synchronization

enum Dependents {
  /// The bits of the word below the address of the topmost waiter, which is a multiple of `nodeStride`: how often was
  /// pushed since somebody looked through the stack.
  static let pushesMask = UInt(nodeStride - 1)
  static let pushesBetween: UInt = 127

  /// The topmost waiter that a word says.
  @inline(__always)
  static func top(_ word: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    UnsafeMutableRawPointer(bitPattern: UInt(bitPattern: word) & ~pushesMask)
  }

  @inline(__always)
  static func pushes(_ word: UnsafeMutableRawPointer?) -> UInt {
    UInt(bitPattern: word) & pushesMask
  }

  @inline(__always)
  static func word(_ top: EntryRef, pushes: UInt) -> UnsafeMutableRawPointer? {
    UnsafeMutableRawPointer(bitPattern: UInt(bitPattern: top.raw) | pushes)
  }
}

extension EntryRef {
  /// Puts `waiter` on self's stack. Needs the latch of a shard in which self is linked, or to be self's owner; and to
  /// have `waiter` for oneself: it is on no other stack.
  func push(_ waiter: EntryRef, _ pool: NodePool) {
    let waiting = waiter.waiting
    var word = tail.pointee.dependents.load(ordering: .relaxed)
    while true {
      let pushes = Dependents.pushes(word)
      if pushes == Dependents.pushesBetween {
        forgetCancelled(pool)
        word = tail.pointee.dependents.load(ordering: .relaxed)
        // Others may have pushed as often meanwhile, under another latch.
        if Dependents.pushes(word) == Dependents.pushesBetween { continue }
      }
      waiting.pointee.next = Dependents.top(word)
      // Releases the waiter's fields to whoever takes the stack.
      let result = tail.pointee.dependents.compareExchange(
        expected: word, desired: Dependents.word(waiter, pushes: Dependents.pushes(word) &+ 1),
        successOrdering: .releasing, failureOrdering: .relaxed)
      if result.exchanged { return }
      word = result.original
    }
  }

  /// Takes the stack. Needs that nobody can push, or all home latches.
  func takeDependents() -> UnsafeMutableRawPointer? {
    // A plain look sees all pushes: they happened under latches that we have or had.
    if tail.pointee.dependents.load(ordering: .relaxed) == nil { return nil }
    // Acquires the pushed entries.
    return Dependents.top(tail.pointee.dependents.exchange(nil, ordering: .acquiring))
  }

  /// Takes those from the stack that gave up. Needs what `push` needs.
  @inline(never)
  private func forgetCancelled(_ pool: NodePool) {
    var next = takeDependents()
    var (first, last): (EntryRef?, EntryRef?) = (nil, nil)
    while let waiter = next.map(EntryRef.init) {
      next = waiter.waiting.pointee.next
      if waiter.pointer.pointee.state.load(ordering: .relaxed) & Entry.cancelled != 0 {
        waiter.drop(pool)
        continue
      }
      waiter.waiting.pointee.next = first?.raw
      first = waiter
      if last == nil { last = waiter }
    }
    guard let first, let last else { return }
    var word = tail.pointee.dependents.load(ordering: .relaxed)
    while true {
      last.waiting.pointee.next = Dependents.top(word)
      // Releases what the exchange acquired, and the links between.
      let result = tail.pointee.dependents.compareExchange(
        expected: word, desired: Dependents.word(first, pushes: Dependents.pushes(word)),
        successOrdering: .releasing, failureOrdering: .relaxed)
      if result.exchanged { return }
      word = result.original
    }
  }
}
