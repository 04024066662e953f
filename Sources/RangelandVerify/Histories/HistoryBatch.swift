// SPDX-License-Identifier: Apache-2.0
//
// Histories are made: threads that meet before each, call, and write down what they saw and when.

import CRangeland
import Synchronization

/// Histories of the same threads on one subject, one history after the other.
final class HistoryBatch: @unchecked Sendable {
  // Sendable: the threads write in places of their own, and thread 0 alone works between two meetings.
  private let subject: any VerifySubject
  private let window: KernelProcess.AddressPair
  private let scripts: [(prologue: [VerifyCall], threads: [[VerifyCall]])]
  private let meeting: Meeting
  /// Both ends of every call draw a number here.
  private let clock = Atomic<Int>(0)
  private let recorded: [PerThread<[HistoryCall]>]
  private var finals: [PageModel] = []

  init(
    _ subject: any VerifySubject, window: KernelProcess.AddressPair, threads: Int, calls: Int,
    histories: Int, seed: UInt64
  ) {
    self.subject = subject
    self.window = window
    meeting = Meeting(threads)
    var generator = HistoryGenerator(seed: seed, window: window)
    scripts = (0..<histories).map { _ in
      var value: UInt64 = 0
      return (
        generator.prologue(),
        (0..<threads).map { thread in
          (0..<calls).map { _ in
            value += 1
            return generator.next(thread, value: value)
          }
        }
      )
    }
    recorded = scripts.map { _ in PerThread(threads, []) }
  }

  func run() throws(VerifyError) -> [History] {
    let seeds = VerifyRandom(seed: UInt64(scripts.count))
    try runTogether(scripts[0].threads.count) { thread in
      var random = seeds
      for _ in 0..<thread { _ = random.next() }
      for index in self.scripts.indices {
        if thread == 0 { self.prepare(index) }
        self.meeting.meet()
        self.recorded[index][thread] = self.make(self.scripts[index].threads[thread], &random)
        self.meeting.meet()
        if thread == 0 { self.finish() }
      }
    }
    return scripts.indices.map { index in
      History(
        window: window, prologue: scripts[index].prologue,
        threads: recorded[index].all, final: finals[index])
    }
  }

  private func prepare(_ index: Int) {
    for call in scripts[index].prologue { _ = subject.perform(call) }
  }

  private func make(
    _ calls: [VerifyCall], _ random: inout VerifyRandom
  ) -> [HistoryCall] {
    var made: [HistoryCall] = []
    made.reserveCapacity(calls.count)
    for call in calls {
      // Now and then another thread gets the processor, so that all take part and not as many as there are
      // processors.
      if random.chance(40) { rl_yield() }
      let began = clock.add(1, ordering: .sequentiallyConsistent).newValue
      let outcome = call.kind == .fork ? fork() : subject.perform(call)
      let ended = clock.add(1, ordering: .sequentiallyConsistent).newValue
      made.append(HistoryCall(call: call, outcome: outcome, began: began, ended: ended))
    }
    return made
  }

  /// A copy, and what is in it. Nobody else has it, so that it may be looked at page by page.
  private func fork() -> VerifyOutcome {
    guard let child = subject.fork() else { return VerifyOutcome(.noMemory) }
    var outcome = VerifyOutcome.success
    outcome.output = look(at: child).child
    return outcome
  }

  /// What the pages are, when nobody changes them.
  private func look(at subject: any VerifySubject) -> PageModel {
    var model = PageModel(count: Int((window.end - window.start) / 4096))
    for mapping in subject.mappings(window.start, window.end) {
      for at in stride(from: mapping.start, to: mapping.end, by: 4096) {
        let index = Int((at - window.start) / 4096)
        if mapping.file != 0 {
          model.map(
            index, rights: UInt64(mapping.protection),
            filePage: Int((mapping.offset + at - mapping.start) / 4096))
          continue
        }
        let page = VerifyAddress(nil, at)
        if mapping.protection == 0 {
          _ = subject.perform(VerifyCall(.mprotect, page, 4096, protection: 1))
        }
        let seen = subject.perform(VerifyCall(.load, page, 8))
        // No thread stores 255: that stands for whatever nobody stored.
        let value = seen.signal == 0 && 0..<255 ~= seen.result ? UInt64(seen.result) : 255
        model.map(
          index, rights: UInt64(mapping.protection), shared: mapping.isShared, value: value)
      }
    }
    return model
  }

  /// Looks at the pages and the file, and empties the window.
  private func finish() {
    var model = look(at: subject)
    let file = subject.contents(0, isWritten: false)
    model.resizeFile(file.count / 4096)
    for place in 0..<file.count / 4096 {
      let word = file[place * 4096..<place * 4096 + 8]
      model.setFile(place, word.dropFirst().allSatisfy { $0 == 0 } ? UInt64(word.first!) : 255)
    }
    let memory = window.sharedMemory
    for place in 0..<PageModel.memoryPages {
      let page = VerifyAddress(nil, memory.start + UInt64(place) * 4096)
      let seen = subject.perform(VerifyCall(.load, page, 8))
      model.setMemory(place, 0..<255 ~= seen.result ? UInt64(seen.result) : 255)
    }
    finals.append(model)
    for part in [window, memory] {
      _ = subject.perform(
        VerifyCall(.munmap, VerifyAddress(nil, part.start), part.end - part.start))
    }
  }
}

/// Where threads wait for each other, again and again.
private final class Meeting: Sendable {
  private let threads: Int
  private let arrived = Atomic<Int>(0)
  private let round = Atomic<Int>(0)

  init(_ threads: Int) { self.threads = threads }

  func meet() {
    let now = round.load(ordering: .acquiring)
    if arrived.add(1, ordering: .acquiringAndReleasing).newValue == threads {
      arrived.store(0, ordering: .relaxed)
      round.store(now + 1, ordering: .releasing)
    } else {
      while round.load(ordering: .acquiring) == now { rl_yield() }
    }
  }
}
