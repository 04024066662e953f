// SPDX-License-Identifier: Apache-2.0
//
// V6: policies of an object's pages, and pages taken from an object, against models.

import RangelandTestSupport
import Testing

@testable import Rangeland

@Suite struct ObjectPolicyTests {
  @Test func `ranges of policies are those of an array`() throws {
    let memory = try PhysicalMemory(frameLimit: 100)
    let context = memory.reclaimer.context()
    var random = SeededRandom(for: "object policies")
    let object = try #require(MemoryObject.make(.sharedAnonymous, memory.arena, context))
    var model = [UInt16](repeating: 0, count: 400)
    for _ in 0..<3_000 {
      let start = random.below(400)
      let end = min(400, start + 1 + random.below(random.chance(10) ? 300 : 12))
      let number = UInt16(random.below(4))
      #expect(ObjectRef.reservePolicy(context))
      object.setPolicy(start, end, number, context)
      for page in start..<end { model[Int(page)] = number }
      for page in model.indices where object.policy(of: UInt64(page)) != model[page] {
        Issue.record("page \(page): \(object.policy(of: UInt64(page))), not \(model[page])")
        return
      }
    }
    #expect(object.policy(of: 400) == 0 && object.policy(of: .max) == 0)
    object.release(context)
  }

  @Test func `pages are taken in order, wherever they are, and empty nodes go`() throws {
    let memory = try PhysicalMemory(frameLimit: 4_000)
    let context = memory.reclaimer.context()
    var random = SeededRandom(for: "pages taken")
    for _ in 0..<40 {
      let object = try #require(MemoryObject.make(.sharedAnonymous, memory.arena, context))
      var model: Set<UInt64> = []
      for _ in 0..<60 {
        // Near 0, far off, and at the last index that there is.
        let index: UInt64
        switch random.below(3) {
        case 0: index = random.below(300)
        case 1: index = 1 << random.below(63) | random.below(64)
        default: index = .max - 1 - random.below(100)
        }
        guard case .frame(let frame) = object.pageCreating(index, context) else {
          Issue.record("no frame")
          return
        }
        memory.arena.release(frame, context)
        model.insert(index)
      }
      while !model.isEmpty {
        let start = random.chance(20) ? 0 : model.randomElement(using: &random)!
        let end = random.chance(30) ? .max : start &+ 1 &+ random.below(100)
        if end <= start { continue }
        let expected = model.filter { $0 >= start && $0 < end }.sorted()
        var marked: [UInt64] = []
        var next = start
        while let page = object.markPage(from: next, below: end) {
          marked.append(page.index)
          #expect(memory.arena.isRemoved(page.frame))
          next = page.index + 1
        }
        #expect(marked == expected)
        // One that is made now stays.
        let late = start + random.below(min(100, end - start))
        if !model.contains(late), random.chance(50),
          case .frame(let frame) = object.pageCreating(late, context)
        {
          memory.arena.release(frame, context)
          model.insert(late)
        }
        var taken: [UInt64] = []
        next = start
        while let page = object.takeMarkedPage(from: next, below: end, context) {
          taken.append(page.index)
          memory.arena.release(page.frame, context)
          next = page.index + 1
        }
        #expect(taken == expected)
        model.subtract(taken)
      }
      #expect(
        object.pointee.pagesRoot == nil && object.pointee.pageCount.load(ordering: .relaxed) == 0)
      object.release(context)
    }
    #expect(memory.arena.usedCount() == 0)
  }
}
