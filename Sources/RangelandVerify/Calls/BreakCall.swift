// SPDX-License-Identifier: Apache-2.0
//
// brk. The heap's window begins where the break is when a script begins; further down it never goes, because there
// are the helper's own data.

import CKernelProtocol
import Rangeland

struct BreakCall: CallDefinition {
  var fields: [CallField] { [] }

  func isKnown(_ call: VerifyCall) -> Bool { call.length == 0 }

  // MARK: made up

  var weight: UInt64 { 5 }
  var edgeWeight: UInt64 { 1 }
  var needs: [VerifyCall.Kind] { [.mmap, .setrlimit] }

  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall {
    let start = generator.absolute(.heap, 0)
    let room = generator.room(.heap, 0)
    var offset = generator.random.below(40) * 4096
    if generator.random.chance(40), let found = subject.mappings(start + offset, start + room).first
    {
      // Up to a mapping, a page before it, or to its end.
      let at = generator.random.pick([found.start, found.start &- 4096, found.end])
      offset = max(at, start) - start
    }
    if generator.random.chance(5) { offset = generator.random.below(room) }
    // To the byte.
    if generator.random.chance(25) { offset += generator.random.below(4096) }
    return VerifyCall(.brk, VerifyAddress(.heap, min(offset, room)), 0)
  }

  func edge(_ generator: inout ScriptGenerator) -> VerifyCall {
    var (address, _) = generator.edgeRange()
    // Not below its window.
    if address.window == .heap && address.offset > UInt64(Int64.max) { address.offset = 0 }
    return VerifyCall(.brk, address, 0)
  }

  // MARK: on both sides

  func request(_ call: VerifyCall) -> KernelRequest { KernelRequest(KP_SYS_brk, call.at) }

  func reach(_ call: VerifyCall) -> [KernelProcess.AddressPair]? {
    // Below every heap, or where no mapping can be.
    if call.at < 1 << 32 || call.at > Address.spaceEnd { return [] }
    return [KernelProcess.AddressPair(start: call.at, end: (call.at + 4095) & ~4095)]
  }

  func isDetermined(
    _ call: VerifyCall, _ areas: [KernelProcess.AddressPair], _ subject: any VerifySubject
  ) -> Bool { false }

  func near(_ call: VerifyCall) -> [NearPlace] { [NearPlace(address: call.at, length: 4096)] }

  // MARK: coverage

  func shapedRange(_ call: VerifyCall) -> KernelProcess.AddressPair? { nil }

  var required: [Coverage.Requirement] {
    [
      Coverage.Requirement("brk", "ok", 50).withOneThread,
      Coverage.Requirement("brk", "stays", 50).withOneThread,
    ]
  }
}
