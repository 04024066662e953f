// SPDX-License-Identifier: Apache-2.0
//
// The lock semantics matrix (acceptance row W-1) by deterministic schedules: a request is known to wait when the
// lock itself counts it as waiting, never because time has passed.

import CRangeland
import RangeLocks
import RangelandTestSupport
import Testing

extension LockTests {
  @Suite struct MatrixTests {
    @Test(
      arguments: Scenario.all, [(LockMode.write, LockMode.read), (.write, .write), (.read, .write)])
    func `A conflicting request waits until the holder releases`(
      _ scenario: Scenario, _ modes: (LockMode, LockMode)
    ) {
      withWatchdog("conflict \(modes) on \(scenario.name)") {
        let lock = LockUnderTest(scenario)
        let held = lock.lock(modes.0)!
        let other = Contender(lock, modes.1)
        lock.awaitWaiters(1)
        #expect(!other.holds)
        held.release()
        other.awaitHold()
        #expect(lock.waiters == 0)
        other.finish()
      }
    }

    @Test(arguments: Scenario.all)
    func `Readers share`(_ scenario: Scenario) {
      withWatchdog("readers on \(scenario.name)") {
        let lock = LockUnderTest(scenario)
        let held = lock.lock(.read)!
        let others = (0..<4).map { _ in Contender(lock, .read) }
        for other in others { other.awaitHold() }
        for other in others { other.finish() }
        held.release()
      }
    }

    @Test(arguments: Scenario.all)
    func `A waiting writer stops new readers, and they follow it`(_ scenario: Scenario) {
      withWatchdog("pending writer on \(scenario.name)") {
        let lock = LockUnderTest(scenario)
        let journal = Journal()
        let held = lock.lock(.read)!
        let writer = Contender(lock, .write, "writer", in: journal)
        lock.awaitWaiters(1)
        #expect(lock.tryLock(.read) == nil)
        let reader = Contender(lock, .read, "reader", in: journal)
        lock.awaitWaiters(2)
        #expect(!reader.holds)
        held.release()
        writer.awaitHold()
        #expect(!reader.holds)
        writer.finish()
        reader.awaitHold()
        reader.finish()
        #expect(journal.all == ["writer", "reader"])
      }
    }

    @Test(arguments: Scenario.all)
    func `Overlapping writers are served in the order they came`(_ scenario: Scenario) {
      withWatchdog("order on \(scenario.name)") {
        let lock = LockUnderTest(scenario)
        let journal = Journal()
        let held = lock.lock(.write)!
        let waiting = (0..<6).map { index in
          let contender = Contender(lock, .write, "\(index)", in: journal)
          lock.awaitWaiters(index + 1)
          return contender
        }
        held.release()
        for (index, contender) in waiting.enumerated() {
          contender.awaitHold()
          #expect(journal.all.count == index + 1)
          contender.finish()
        }
        #expect(journal.all == ["0", "1", "2", "3", "4", "5"])
      }
    }

    @Test(arguments: Scenario.all)
    func `A try never waits and fails exactly on a conflict`(_ scenario: Scenario) {
      let lock = LockUnderTest(scenario)
      let reading = lock.tryLock(.read)
      #expect(reading != nil)
      #expect(lock.tryLock(.write) == nil)
      let second = lock.tryLock(.read)
      #expect(second != nil)
      reading?.release()
      #expect(lock.tryLock(.write) == nil)
      second?.release()
      let writing = lock.tryLock(.write)
      #expect(writing != nil)
      #expect(lock.tryLock(.read) == nil)
      #expect(lock.tryLock(.write) == nil)
      writing?.release()
      lock.tryLock(.write)?.release()
      #expect(lock.waiters == 0)
    }

    @Test(arguments: Scenario.all)
    func `A downgrade lets waiting readers in and keeps writers out`(_ scenario: Scenario) {
      withWatchdog("downgrade on \(scenario.name)") {
        let lock = LockUnderTest(scenario)
        let held = lock.lock(.write)!
        let readers = [Contender(lock, .read), Contender(lock, .read)]
        lock.awaitWaiters(2)
        let writer = Contender(lock, .write)
        lock.awaitWaiters(3)
        held.downgrade()
        for reader in readers { reader.awaitHold() }
        #expect(lock.waiters == 1)
        #expect(!writer.holds)
        for reader in readers { reader.finish() }
        #expect(lock.waiters == 1)
        #expect(!writer.holds)
        held.release()
        writer.awaitHold()
        writer.finish()
      }
    }

    @Test(arguments: Scenario.all)
    func `No writer slips into a downgrade`(_ scenario: Scenario) {
      withWatchdog("writer first, then downgrade, on \(scenario.name)") {
        let lock = LockUnderTest(scenario)
        let journal = Journal()
        let held = lock.lock(.write)!
        let writer = Contender(lock, .write, "writer", in: journal)
        lock.awaitWaiters(1)
        let reader = Contender(lock, .read, "reader", in: journal)
        lock.awaitWaiters(2)
        held.downgrade()
        #expect(lock.waiters == 2)
        #expect(journal.all.isEmpty)
        held.release()
        writer.awaitHold()
        writer.finish()
        reader.awaitHold()
        reader.finish()
        #expect(journal.all == ["writer", "reader"])
      }
    }

    @Test(arguments: Scenario.all)
    func `A downgraded holder is a reader`(_ scenario: Scenario) {
      let lock = LockUnderTest(scenario)
      let held = lock.tryLock(.write)
      held?.downgrade()
      let reader = lock.tryLock(.read)
      #expect(reader != nil)
      #expect(lock.tryLock(.write) == nil)
      reader?.release()
      #expect(lock.tryLock(.write) == nil)
      held?.release()
      let writer = lock.tryLock(.write)
      #expect(writer != nil)
      writer?.release()
    }

    @Test(arguments: Scenario.all)
    func `A deadline that has passed gives up and leaves no trace`(_ scenario: Scenario) {
      withWatchdog("deadline on \(scenario.name)") {
        let lock = LockUnderTest(scenario)
        let held = lock.lock(.read)!
        #expect(lock.lock(.write, deadline: rl_monotonic_ns()) == nil)
        #expect(lock.waiters == 0)
        let reader = lock.tryLock(.read)
        #expect(reader != nil)
        reader?.release()
        held.release()
        let free = lock.lock(.write, deadline: 1)
        #expect(free != nil)
        free?.release()
      }
    }

    @Test(arguments: Scenario.all)
    func `Readers behind a writer that gives up enter`(_ scenario: Scenario) {
      withWatchdog("a writer gives up on \(scenario.name)") {
        let lock = LockUnderTest(scenario)
        let held = lock.lock(.read)!
        let writer = TestThread {
          #expect(lock.lock(.write, deadline: rl_monotonic_ns() + 200_000_000) == nil)
        }
        lock.awaitWaiters(1)
        let reader = Contender(lock, .read)
        writer.join()
        reader.awaitHold()
        reader.finish()
        held.release()
      }
    }

    @Test(arguments: Scenario.all)
    func `A hold may be released by another thread`(_ scenario: Scenario) {
      withWatchdog("release elsewhere on \(scenario.name)") {
        let lock = LockUnderTest(scenario)
        let held = lock.lock(.write)!
        let other = Contender(lock, .write)
        lock.awaitWaiters(1)
        TestThread { held.release() }.join()
        other.awaitHold()
        other.finish()
      }
    }
  }
}
