// SPDX-License-Identifier: Apache-2.0
//
// Random calls on a few pages, so that threads meet in nearly all of them.

import Rangeland

struct HistoryGenerator {
  var random: VerifyRandom
  let window: KernelProcess.AddressPair
  private let pages: UInt64
  /// Whether pages are moved in this history; else the space chooses the places of some mappings. Under `.ranged` a
  /// move takes where it goes before it gives up where it was, which those who look for a gap see, and nobody else.
  private var moves = false

  init(seed: UInt64, window: KernelProcess.AddressPair) {
    random = VerifyRandom(seed: seed)
    self.window = window
    pages = (window.end - window.start) / 4096
  }

  /// What is there before the threads begin: some pages are mapped, some hold a value.
  mutating func prologue() -> [VerifyCall] {
    let memory = window.sharedMemory
    moves = random.chance(50)
    var calls = [truncate(0), truncate(2 + random.below(6))]
    calls.append(
      VerifyCall(
        .mmap, VerifyAddress(nil, memory.start), memory.end - memory.start, protection: 3,
        flags: VerifyCall.fixed | VerifyCall.shared | VerifyCall.anonymous))
    if random.chance(60) { calls.append(mapAgain()) }
    if random.chance(60) {
      let (at, length) = range()
      calls.append(mapFile(at, length))
    }
    for _ in 0..<2 + random.below(3) {
      let (at, length) = range()
      calls.append(map(at, length, VerifyCall.fixed))
      // With the right to write, for the value that follows.
      calls[calls.count - 1].protection = 3
      calls.append(VerifyCall(.store, VerifyAddress(nil, at), 8, value: 200 + random.below(50)))
    }
    return calls
  }

  /// A call of one thread; `value` is what it stores.
  mutating func next(_ thread: Int, value: UInt64) -> VerifyCall {
    let (at, length) = range()
    let address = VerifyAddress(nil, at)
    var call: VerifyCall
    switch random.below(112) {
    case 0..<22: call = VerifyCall(.store, address, 8, value: value)
    case 22..<44: call = VerifyCall(.load, address, 8)
    case 44..<47: call = VerifyCall(.fork, VerifyAddress(nil, 0), 0)
    case 47..<51: call = truncate(random.below(8))
    case 51..<52: call = VerifyCall(.msync, address, length, flags: 4)
    case 52..<57: call = mapFile(at, length)
    case 57..<60: call = map(at, length, VerifyCall.fixed)
    case 60..<67: call = map(at, length, VerifyCall.fixedNoReplace)
    case 67..<79 where moves: call = move(at, length)
    case 67..<75: call = map(0, length, 0)
    case 75..<79: call = map(at, length, 0)
    case 79..<87: call = VerifyCall(.munmap, address, length)
    case 87..<94:
      call = VerifyCall(.mprotect, address, length, protection: random.pick([0, 1, 3, 3]))
    case 94..<100: call = VerifyCall(.madvise, address, length, flags: AdviseCall.dontNeed)
    case 100..<104: call = mapAgain()
    case 104..<108: call = punch()
    case 108..<110: call = VerifyCall(.store, memoryPage(), 8, value: value)
    default: call = VerifyCall(.load, memoryPage(), 8)
    }
    call.thread = thread
    return call
  }

  private mutating func range() -> (UInt64, UInt64) {
    let first = random.below(pages)
    let length = 1 + random.below(min(4, pages - first))
    return (window.start + first * 4096, length * 4096)
  }

  private mutating func memoryPage() -> VerifyAddress {
    VerifyAddress(
      nil, window.sharedMemory.start + random.below(UInt64(PageModel.memoryPages)) * 4096)
  }

  /// Pages of the shared memory stand in the window too.
  private mutating func mapAgain() -> VerifyCall {
    let (target, length) = range()
    let last = UInt64(PageModel.memoryPages) - length / 4096
    let source = window.sharedMemory.start + random.below(last + 1) * 4096
    var call = VerifyCall(.mremap, VerifyAddress(nil, source), 0)
    (call.newLength, call.target) = (length, VerifyAddress(nil, target))
    call.flags = RemapCall.mayMove | RemapCall.fixed
    return call
  }

  /// Pages go to another place in the window, which may lie over where they are.
  private mutating func move(_ at: UInt64, _ length: UInt64) -> VerifyCall {
    var call = VerifyCall(.mremap, VerifyAddress(nil, at), length)
    let target = window.start + random.below(pages - length / 4096 + 1) * 4096
    (call.newLength, call.target) = (length, VerifyAddress(nil, target))
    call.flags = RemapCall.mayMove | RemapCall.fixed
    return call
  }

  /// A hole in the shared memory.
  private mutating func punch() -> VerifyCall {
    let at = memoryPage()
    let length = (1 + random.below(3)) * 4096
    return VerifyCall(
      .madvise, at, min(length, window.sharedMemory.end - at.offset),
      flags: UInt64(Advice.remove.rawValue))
  }

  /// The file gets so many pages.
  private func truncate(_ pages: UInt64) -> VerifyCall {
    var call = VerifyCall(.truncate, VerifyAddress(nil, 0), 0, value: pages * 4096)
    call.descriptor = 0
    return call
  }

  private mutating func mapFile(_ at: UInt64, _ length: UInt64) -> VerifyCall {
    let last = UInt64(PageModel.mostFilePages) - length / 4096
    var call = VerifyCall(
      .mapFile, VerifyAddress(nil, at), length, protection: random.pick([3, 3, 1]),
      flags: VerifyCall.fixed | VerifyCall.shared, value: random.below(last + 1) * 4096)
    call.descriptor = 0
    return call
  }

  private mutating func map(_ at: UInt64, _ length: UInt64, _ flags: UInt64) -> VerifyCall {
    let sharing = random.chance(20) ? VerifyCall.shared : VerifyCall.private
    return VerifyCall(
      .mmap, VerifyAddress(nil, at), length, protection: random.pick([3, 3, 3, 1, 0]),
      flags: flags | sharing | VerifyCall.anonymous)
  }
}
