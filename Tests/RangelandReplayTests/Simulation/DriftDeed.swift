// SPDX-License-Identifier: Apache-2.0
//
// What the histories of SimulationDriftTests are made of: one operation, on the simulator and on an address space.

#if RANGELAND_CHECKS
  import RangelandTestSupport

  @testable import Rangeland
  @testable import RangelandReplay

  /// One operation of a history.
  struct DriftDeed: CustomStringConvertible {
    enum What: CaseIterable { case map, unmap, protect, read, write, dontNeed, move, resize }
    static let page: UInt64 = 4096
    static let base: UInt64 = 0x10_0000_0000
    static let pages: UInt64 = 20

    var what: What
    var first: UInt64
    var count: UInt64
    var rights: UInt32
    /// Where it moves, and to which length.
    var target: UInt64 = 0
    var newCount: UInt64 = 0
    var keepsSource = false

    init(using random: inout SeededGenerator) {
      what = What.allCases.randomElement(using: &random)!
      first = .random(in: 0..<Self.pages - 4, using: &random)
      count = what == .read || what == .write ? 1 : .random(in: 1...4, using: &random)
      rights = [1, 3, 3, 5].randomElement(using: &random)!
      guard what == .move || what == .resize else { return }
      newCount = .random(in: 1...4, using: &random)
      guard what == .move else { return }
      // Half of them as they are: those may cover several mappings.
      if Bool.random(using: &random) { newCount = count }
      // Not where it is: that is refused before there is a lock.
      repeat {
        target = .random(in: 0..<Self.pages - 4, using: &random)
      } while target < first + count && first < target + newCount
      keepsSource = newCount == count && Int.random(in: 0..<4, using: &random) == 0
    }

    var move: SimulationMove {
      SimulationMove(
        to: what == .move ? Self.base + target * Self.page : nil, oldLength: count * Self.page,
        newLength: newCount * Self.page, keepsSource: keepsSource)
    }

    var start: UInt64 { Self.base + first * Self.page }
    var end: UInt64 { start + count * Self.page }
    var description: String {
      "\(what) \(first)+\(count) \(rights)"
        + (newCount > 0 ? " to \(target)+\(newCount) \(keepsSource)" : "")
    }

    var operation: OperationKind {
      switch what {
      case .map: .map
      case .unmap: .unmap
      case .protect: .protect
      case .read, .write: .fault
      case .dontNeed: .dontNeed
      case .move, .resize: .remap
      }
    }

    func step(_ attributes: (UInt32) -> UInt32) -> SimulationStep {
      let effect: SimulationStep.Effect =
        switch what {
        case .map, .move, .resize: .map
        case .unmap: .unmap
        case .protect: .protect
        case .read, .write, .dontNeed: .none
        }
      let end = newCount > 0 ? move.sourceRange(from: start).upperBound : end
      var step = SimulationStep(
        operation, start, end, writes: operation.locksForWriting, effect: effect)
      step.writesPage = what == .write
      step.attributes = what == .map ? attributes(rights) : rights
      return step
    }

    func run(_ space: AddressSpace) {
      let protection = Rangeland.Protection(rawValue: rights)
      do {
        switch what {
        case .map: _ = try space.map(length: end - start, at: .fixed(start), protection: protection)
        case .unmap: try space.unmap(at: start, length: end - start)
        case .protect: try space.protect(at: start, length: end - start, protection)
        case .read: try space.fault(at: start, .read)
        case .write: try space.fault(at: start, .write)
        case .dontNeed: try space.dontNeed(at: start, length: end - start)
        case .move, .resize:
          _ = try space.remap(
            at: start, length: end - start, to: newCount * Self.page,
            what == .move ? .fixed(Self.base + target * Self.page) : .inPlace,
            keepingSource: keepsSource)
        }
      } catch {
        // Holes and missing rights: the lock is taken before they are found.
      }
    }
  }
#endif
