// SPDX-License-Identifier: Apache-2.0
//
// Changing between whole-lock mode and the directory.
//
// Guarantee: a switch never waits for a hold to end; a hold of whole-lock mode becomes an entry of the directory
// with the same range and mode, ahead of all requests that come after.
// Mechanism: under the mode latch. Leaving: the word names the holder, whose entry is linked as it stands, then
// the word says "directory". Entering: the word says "switching", then every count is looked at: all zero, or back.
// Cost: leaving about as much as an acquire, entering a look at every shard in use; when, see `sample`.
// Lock order inside: the mode latch before all shards.

import CRangeland
import Synchronization

/// What a lock needs to change its mode. Protected by the mode latch.
struct ModeSwitch {
  /// The thread (index + 1) of the last sample, and how many samples in a row were its.
  var sampler: UInt32
  var samplesInARow: UInt32
  /// Samples in a row that are needed to enter whole-lock mode; 0: never.
  var samplesNeeded: UInt32
  /// When whole-lock mode was entered, CLOCK_MONOTONIC nanoseconds.
  var enteredAt: UInt64
  /// How often the mode was entered and left.
  var entered: UInt64
  var left: UInt64

  /// A thread's requests in the directory between two samples.
  static let sampleInterval: UInt32 = 256
  static let fewestSamples: UInt32 = 4
  static let mostSamples: UInt32 = 4096
  /// A time in whole-lock mode that was worth the switches.
  static let worthwhile: UInt64 = 10_000_000
}

extension Directory {
  // MARK: Leaving

  /// Makes the directory the place to ask. Never waits for a hold to end.
  @inline(never)
  func leaveWhole() {
    modeLatch.pointee.lock()
    leaveWholeLocked()
    modeLatch.pointee.unlock()
  }

  /// Needs the mode latch.
  func leaveWholeLocked() {
    while true {
      // Acquires the holder's entry.
      let word = header.pointee.word.load(ordering: .acquiring)
      if WholeWord.isOpen(word) { return }
      guard let holder = WholeWord.holder(word) else {
        // Sequentially consistent: pairs with the look of `acquireFast` after it raised its counts.
        if header.pointee.word.compareExchange(
          expected: WholeWord.free, desired: WholeWord.directory,
          ordering: .sequentiallyConsistent
        ).exchanged {
          noteLeaving()
          return
        }
        continue
      }
      // From here on the holder's release comes to the latch, so its entry stays as it is.
      if !header.pointee.word.compareExchange(
        expected: word, desired: WholeWord.switching, ordering: .sequentiallyConsistent
      ).exchanged {
        continue
      }
      adopt(holder)
      header.pointee.word.store(WholeWord.directory, ordering: .sequentiallyConsistent)
      noteLeaving()
      return
    }
  }

  /// A mode that was left soon is entered later the next time.
  private func noteLeaving() {
    let state = modeSwitch
    state.pointee.left &+= 1
    let needed = state.pointee.samplesNeeded
    if needed == 0 { return }
    let wasWorthwhile = rl_monotonic_ns() &- state.pointee.enteredAt >= ModeSwitch.worthwhile
    state.pointee.samplesNeeded =
      wasWorthwhile ? ModeSwitch.fewestSamples : min(needed * 2, ModeSwitch.mostSamples)
  }

  /// How often the mode was changed.
  var modeSwitches: UInt64 {
    modeLatch.pointee.lock()
    defer { modeLatch.pointee.unlock() }
    return modeSwitch.pointee.entered &+ modeSwitch.pointee.left
  }

  // MARK: Entering

  /// Called by each thread at every `sampleInterval`th request of its own in a directory: enters whole-lock
  /// mode when many samples in a row were one thread's.
  @inline(never)
  func sample() {
    if !modeLatch.pointee.tryLock() { return }
    let state = modeSwitch
    let thread = rl_thread_index() + 1
    if state.pointee.sampler == thread {
      state.pointee.samplesInARow &+= 1
    } else {
      state.pointee.sampler = thread
      state.pointee.samplesInARow = 1
    }
    let needed = state.pointee.samplesNeeded
    if needed != 0, state.pointee.samplesInARow >= needed { enterWholeLocked() }
    modeLatch.pointee.unlock()
  }

  /// Enters whole-lock mode if nobody is in the directory; true if the lock is in that mode now.
  func enterWhole() -> Bool {
    modeLatch.pointee.lock()
    defer { modeLatch.pointee.unlock() }
    enterWholeLocked()
    return !WholeWord.isOpen(header.pointee.word.load(ordering: .relaxed))
  }

  /// Needs the mode latch.
  private func enterWholeLocked() {
    if header.pointee.word.load(ordering: .relaxed) != WholeWord.directory { return }
    modeSwitch.pointee.samplesInARow = 0
    closeIdleStripes()
    // Sequentially consistent, both: who raises a count and still reads "directory" is seen by the look below;
    // who reads "switching" gives its count back and comes to the latch.
    header.pointee.word.store(WholeWord.switching, ordering: .sequentiallyConsistent)
    if isEmpty {
      modeSwitch.pointee.enteredAt = rl_monotonic_ns()
      modeSwitch.pointee.entered &+= 1
      header.pointee.word.store(WholeWord.free, ordering: .sequentiallyConsistent)
    } else {
      header.pointee.word.store(WholeWord.directory, ordering: .sequentiallyConsistent)
    }
  }
}

extension Directory {
  /// Changes the entry of a hold if it is one of whole-lock mode; false, and nothing done, if not.
  ///
  /// Under the mode latch, so that nobody takes the entry over meanwhile.
  @inline(never)
  func changeInWholeMode(_ entry: EntryRef, _ change: (EntryRef) -> Void) -> Bool {
    modeLatch.pointee.lock()
    defer { modeLatch.pointee.unlock() }
    // Acquires the entry's links if it was taken over.
    if header.pointee.word.load(ordering: .acquiring) != WholeWord.held(entry) { return false }
    change(entry)
    return true
  }
}
