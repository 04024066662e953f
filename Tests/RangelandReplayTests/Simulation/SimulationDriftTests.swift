// SPDX-License-Identifier: Apache-2.0
//
// The simulator's rules and the real policies are the same: random short histories, step by step on both.
//
// A controller starts operations on threads and lets them end, one at a time. The real operations stop inside their
// lock until they are let go. After every step the same threads must stand inside, the others wait, and at the end the
// counts of who waited for whom, and the mappings, must be equal.

#if RANGELAND_CHECKS
  import CRangeland
  import RangelandTestSupport
  import Synchronization
  import SystemPackage
  import Testing

  @testable import Rangeland
  @testable import RangelandReplay

  private let page = DriftDeed.page
  private let base = DriftDeed.base
  private let pages = DriftDeed.pages

  /// The threads of the real side.
  private final class Actors: Sendable {
    /// What an actor is about: 0 idle, 1 told to run, 2 inside its operation, 3 let go, 4 told to end.
    private let words: [AtomicBox]
    private let skips: [AtomicBox]
    private let deeds: DeedTable

    final class AtomicBox: Sendable {
      let word = Atomic<Int>(0)
    }
    /// Written by the controller while the actor is idle, read by the actor.
    final class DeedTable: @unchecked Sendable {
      var deeds: [DriftDeed?]
      init(_ count: Int) { deeds = Array(repeating: nil, count: count) }
    }

    init(_ count: Int) {
      words = (0..<count).map { _ in AtomicBox() }
      skips = (0..<count).map { _ in AtomicBox() }
      deeds = DeedTable(count)
    }

    func state(_ actor: Int) -> Int { words[actor].word.load(ordering: .acquiring) }

    /// - Parameter skips: passes that do not count: the word of a VMA that turns out not to be enough.
    func start(_ actor: Int, _ deed: DriftDeed, skips: Int) {
      deeds.deeds[actor] = deed
      self.skips[actor].word.store(skips, ordering: .relaxed)
      words[actor].word.store(1, ordering: .releasing)
    }

    func letGo(_ actor: Int) { words[actor].word.store(3, ordering: .releasing) }
    func end(_ actor: Int) { words[actor].word.store(4, ordering: .releasing) }

    /// The life of an actor.
    func live(_ actor: Int, _ space: AddressSpace) {
      while true {
        switch state(actor) {
        case 1:
          deeds.deeds[actor]!.run(space)
          words[actor].word.store(0, ordering: .releasing)
        case 4: return
        default: rl_yield()
        }
      }
    }

    /// Called inside an operation of an actor.
    func pass(_ actor: Int) {
      if skips[actor].word.load(ordering: .relaxed) > 0 {
        skips[actor].word.subtract(1, ordering: .relaxed)
        return
      }
      words[actor].word.store(2, ordering: .releasing)
      while state(actor) != 3 { rl_yield() }
    }
  }

  /// One history on both sides.
  private struct History {
    private enum State { case idle, holding, waiting, waitingForWord }

    private let policy: LockPolicy
    private let space: AddressSpace
    private let actors: Actors
    private var states: [State]
    private var deeds: [DriftDeed?]
    private var steps: [SimulationStep]
    private var now: UInt64 = 0
    private var attributes: [UInt32: UInt32] = [:]
    private(set) var log: [String] = []

    /// The thread-local word that holds a thread's actor, plus 1. Nobody else uses it.
    private static let actorKey: UInt32 = 5

    init(_ policy: LockPolicy, threads: Int, random: inout SeededGenerator) throws {
      self.policy = policy
      space = try AddressSpace(policy: policy, statistics: true)
      actors = Actors(threads)
      states = Array(repeating: .idle, count: threads)
      deeds = Array(repeating: nil, count: threads)
      steps = Array(repeating: SimulationStep(.pause, nanoseconds: 0), count: threads)
    }

    /// What differs.
    static func run(
      _ policy: LockPolicy, threads: Int, length: Int, random: inout SeededGenerator
    ) throws -> [String] {
      var history = try History(policy, threads: threads, random: &random)
      var program = SimulationProgram(threads: threads)
      // The mappings at the start, of all kinds that merge and do not.
      for rights in [1, 3, 5] as [UInt32] {
        history.attributes[rights] = UInt32(program.attributes.count)
        program.attributes.append(
          .init(
            flags: rights | (rights & 2 != 0 ? SimulationProgram.Attributes.charged : 0), object: 0,
            delta: 0))
      }
      var next: UInt64 = 0
      while next < pages {
        let count = UInt64.random(in: 1...4, using: &random)
        let rights = [1, 3, 3, 5].randomElement(using: &random)!
        if Bool.random(using: &random) || Bool.random(using: &random) {
          let (start, end) = (base + next * page, base + (next + count) * page)
          try history.space.substituteMapping(
            AddressRange(start: start, end: end),
            protection: Rangeland.Protection(rawValue: UInt32(rights)), sharing: .private)
          program.areas.append((start, end, history.attributes[UInt32(rights)]!))
        }
        next += count
      }
      return try history.play(program, length: length, random: &random)
    }

    private mutating func play(
      _ program: SimulationProgram, length: Int, random: inout SeededGenerator
    ) throws -> [String] {
      let count = states.count
      var model = LockModel(policy: policy, threads: count, areas: SimulatedAreas(program))
      let actors = actors
      let space = space
      space.park.callAlways(
        ParkHook { _ in
          let actor = Int(rl_tls_get(Self.actorKey))
          if actor > 0 { actors.pass(actor - 1) }
        })
      let threads = (0..<count).map { actor in
        TestThread {
          rl_tls_set(Self.actorKey, UInt64(actor + 1))
          actors.live(actor, space)
        }
      }
      for _ in 0..<length {
        let idle = states.indices.filter { states[$0] == .idle }
        let holding = states.indices.filter { states[$0] == .holding }
        if let actor = idle.randomElement(using: &random),
          holding.isEmpty || Int.random(in: 0..<5, using: &random) < 3
        {
          start(actor, DriftDeed(using: &random), &model)
        } else if let actor = holding.randomElement(using: &random) {
          letGo(actor, &model)
        }
        settle(model)
      }
      while let actor = states.firstIndex(of: .holding) {
        letGo(actor, &model)
        settle(model)
      }
      for actor in 0..<count { actors.end(actor) }
      for thread in threads { thread.join() }
      return differences(model)
    }

    private mutating func start(_ actor: Int, _ deed: DriftDeed, _ model: inout LockModel) {
      now += 1
      var step = deed.step { attributes[$0]! }
      if step.isMove {
        step.attributes = UInt32(model.areas.moves.count)
        model.areas.moves.append(deed.move)
      }
      deeds[actor] = deed
      steps[actor] = step
      log.append("\(actor): \(deed)")
      // A first write enters the word, finds that it is not enough, and takes the lock.
      let skips =
        policy == .perVMA && deed.what == .write
        && model.areas.readableCell(step.start, step.end, needsIdentity: false) >= 0
        && model.areas.readableCell(step.start, step.end, needsIdentity: true) < 0
      actors.start(actor, deed, skips: skips ? 1 : 0)
      if model.request(actor, step, now: now) {
        hold(actor, &model)
      } else {
        states[actor] = .waiting
        if !model.usesRanges { model.queue(actor) }
      }
      deliver(&model)
    }

    private mutating func hold(_ actor: Int, _ model: inout LockModel) {
      let locks = policy != .perVMA || !steps[actor].writes || model.lockCells(actor, now: now)
      states[actor] = locks ? .holding : .waitingForWord
    }

    private mutating func letGo(_ actor: Int, _ model: inout LockModel) {
      now += 1
      log.append("\(actor): ends")
      states[actor] = .idle
      model.release(actor, steps[actor], now: now)
      actors.letGo(actor)
      // The real one is through before others go on being compared.
      while actors.state(actor) != 0 { rl_yield() }
      deliver(&model)
    }

    private mutating func deliver(_ model: inout LockModel) {
      var index = 0
      while index < model.signalCount {
        let word = model.signals[index]
        index += 1
        let actor = Int(word >> 1)
        if word & 1 == UInt32(LockSignal.invited.rawValue) {
          model.lookAgain(actor)
        } else if states[actor] == .waitingForWord {
          model.proceedWithCells(actor, now: now)
          hold(actor, &model)
        } else {
          model.proceed(Int32(actor), now: now)
          hold(actor, &model)
        }
      }
      model.signalCount = 0
    }

    /// Waits until the real side has come to where the model is. If it never does, the watchdog tells what was done.
    private func settle(_ model: borrowing LockModel) {
      let waiting = states.count { $0 == .waiting || $0 == .waitingForWord }
      var queued = model.usesRanges ? waiting : 0
      var place = model.usesRanges ? -1 : model.queueFirst
      while place >= 0 {
        queued += 1
        place = model.at(place).pointee.nextQueued
      }
      while true {
        let isEqual = states.indices.allSatisfy {
          (actors.state($0) == 2) == (states[$0] == .holding)
        }
        if isEqual, space.waitingRequests == waiting,
          space.lock.pointee.queuedRequests() == queued
        {
          return
        }
        rl_yield()
      }
    }

    private func differences(_ model: borrowing LockModel) -> [String] {
      var list: [String] = []
      func compare<Value: Equatable>(_ name: String, _ real: Value, _ simulated: Value) {
        if real != simulated { list.append("\(name): \(real), simulated \(simulated)") }
      }
      let real = space.lockStatistics!
      compare("waits", real.waits, model.totals.waits)
      // Under `.perVMA` somebody may be ahead for no longer than a granted thread takes to wake up: whether the ledger
      // looks in that instant is chance.
      if policy != .perVMA { compare("false waits", real.falseWaits, model.totals.falseWaits) }
      var found: [String: UInt64] = [:]
      for blocked in real.blocked where blocked.waits > 0 {
        found["\(blocked.operation) x \(blocked.blocker?.name ?? "nobody")"] = blocked.waits
      }
      var expected: [String: UInt64] = [:]
      for operation in OperationKind.allCases {
        for ahead in 0..<33 {
          let waits = model.totals.cells[Int(operation.rawValue) * 33 + ahead].waits
          let name = OperationKind(rawValue: UInt8(ahead))?.name ?? "nobody"
          if waits > 0 { expected["\(operation) x \(name)"] = waits }
        }
      }
      compare("who waited for whom", found, expected)
      if policy == .perVMA {
        let areas = model.areas.all.map { [$0.start, $0.end, UInt64($0.attributes.flags & 7)] }
        let mappings = space.mappings().map {
          [$0.range.start, $0.range.end, UInt64($0.protection.rawValue)]
        }
        compare("mappings", mappings, areas)
      }
      return list.isEmpty ? [] : list + log
    }
  }

  @Suite struct SimulationDriftTests {
    @Test(arguments: LockPolicy.allCases)
    func `The simulator and the real policy let the same threads in and wait for the same ones`(
      _ policy: LockPolicy
    ) throws {
      var random = SeededGenerator("drift \(policy)")
      try withWatchdog(seconds: 120, "simulation against \(policy)") {
        for _ in 0..<60 {
          let before = random
          var differences = try History.run(policy, threads: 5, length: 24, random: &random)
          // Under `.perVMA` a thread that is let in at one release may meet, or just miss, what the next one ends: whether it counts
          // as a second wait is chance. What differs whenever the history is played is none.
          var attempts = 1
          while policy == .perVMA, !differences.isEmpty, attempts < 10 {
            var again = before
            differences = try History.run(policy, threads: 5, length: 24, random: &again)
            attempts += 1
          }
          #expect(differences.isEmpty)
        }
      }
    }
  }
#endif
