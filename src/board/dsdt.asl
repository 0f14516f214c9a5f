/* SPDX-License-Identifier: Apache-2.0 */
/* The board's name space (ACPI 6.4). Addresses are those of src/board/layout.h; the processors are
 * in an SSDT made at run time. */
DefinitionBlock ("dsdt.aml", "DSDT", 2, "TRIVSR", "TRIVISOR", 1)
{
    /* Soft off: the sleep type the power-management device takes for it. */
    Name (\_S5, Package () { 5, 5, 0, 0 })

    /* 0: the guest uses the 8259s, 1: the I/O APIC. */
    Name (\PICM, 0)
    Method (\_PIC, 1) { PICM = Arg0 }

    Scope (\_SB)
    {
        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A08"))
            Name (_CID, EisaId ("PNP0A03"))
            Name (_UID, 0)
            Name (_SEG, 0)
            Name (_BBN, 0)
            Name (_CRS, ResourceTemplate ()
            {
                WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode,
                    0, 0, 0, 0, 1)
                IO (Decode16, 0x0CF8, 0x0CF8, 1, 8)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
                    0, 0, 0x0CF7, 0, 0x0CF8)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
                    0, 0x0D00, 0xFFFF, 0, 0xF300)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                    0, 0xC0000000, 0xDFFFFFFF, 0, 0x20000000)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                    0, 0xF0000000, 0xFEBFFFFF, 0, 0x0EC00000)
            })

            /* Nothing of PCI Express is handed over: its hot-plug is not built (ACPI's is), there are
             * no errors to report, no power management. Every bit that is asked for is masked. */
            Method (_OSC, 4)
            {
                CreateDWordField (Arg3, 0, CDW1)
                If (Arg0 != ToUUID ("33DB4D5B-1FF7-401C-9657-7441C03DD766"))
                {
                    CDW1 |= 4
                    Return (Arg3)
                }
                CreateDWordField (Arg3, 8, CDW3)
                If (Arg1 != 1) { CDW1 |= 8 }
                If (CDW3 != 0) { CDW1 |= 0x10 }
                CDW3 = 0
                Return (Arg3)
            }

            /* INTA of device 0 is line 0, and so on around four lines: one input of the I/O APIC
             * from 16 on, or an ISA interrupt. */
            Method (_PRT, 0, Serialized)
            {
                Local0 = Package (128) {}
                Local1 = 0
                While (Local1 < 128)
                {
                    Local2 = Local1 >> 2 /* device */
                    Local3 = Local1 & 3  /* pin */
                    Local4 = (Local2 + Local3) & 3
                    If (PICM)
                    {
                        Local5 = Local4 + 16
                    }
                    Else
                    {
                        Local5 = DerefOf (Index (Package () { 5, 10, 11, 12 }, Local4))
                    }
                    Local6 = Package () { 0, 0, 0, 0 }
                    Local6[0] = (Local2 << 16) | 0xFFFF
                    Local6[1] = Local3
                    Local6[3] = Local5
                    Local0[Local1] = Local6
                    Local1++
                }
                Return (Local0)
            }

            /* Slots whose devices come and go while the guest runs: src/dev/pci/hotplug.h has the
             * registers. Without PCI Express' own hot-plug (_OSC) guests use these. */
            OperationRegion (HPOR, SystemIO, 0x0610, 12)
            Field (HPOR, DWordAcc, NoLock, WriteAsZeros)
            {
                HPUP, 32, /* reading clears */
                HPDN, 32, /* likewise */
                HPEJ, 32
            }

            Device (S24)
            {
                Name (_ADR, 0x00180000)
                Name (_SUN, 24)
                Method (_EJ0, 1) { HPEJ = 0x01000000 }
            }

            Device (S25)
            {
                Name (_ADR, 0x00190000)
                Name (_SUN, 25)
                Method (_EJ0, 1) { HPEJ = 0x02000000 }
            }

            Device (S26)
            {
                Name (_ADR, 0x001A0000)
                Name (_SUN, 26)
                Method (_EJ0, 1) { HPEJ = 0x04000000 }
            }

            Device (S27)
            {
                Name (_ADR, 0x001B0000)
                Name (_SUN, 27)
                Method (_EJ0, 1) { HPEJ = 0x08000000 }
            }

            Device (S28)
            {
                Name (_ADR, 0x001C0000)
                Name (_SUN, 28)
                Method (_EJ0, 1) { HPEJ = 0x10000000 }
            }

            Device (S29)
            {
                Name (_ADR, 0x001D0000)
                Name (_SUN, 29)
                Method (_EJ0, 1) { HPEJ = 0x20000000 }
            }

            Device (S30)
            {
                Name (_ADR, 0x001E0000)
                Name (_SUN, 30)
                Method (_EJ0, 1) { HPEJ = 0x40000000 }
            }

            Device (S31)
            {
                Name (_ADR, 0x001F0000)
                Name (_SUN, 31)
                Method (_EJ0, 1) { HPEJ = 0x80000000 }
            }
        }

        /* What belongs to the board and to no driver: ECAM, power management, reset, ELCR. */
        Device (MBRD)
        {
            Name (_HID, EisaId ("PNP0C02"))
            Name (_UID, 0)
            Name (_CRS, ResourceTemplate ()
            {
                Memory32Fixed (ReadWrite, 0xE0000000, 0x10000000)
                IO (Decode16, 0x0600, 0x0600, 1, 0x20)
                IO (Decode16, 0x04D0, 0x04D0, 1, 2)
                IO (Decode16, 0x0092, 0x0092, 1, 1)
            })
        }

        Device (PIC)
        {
            Name (_HID, EisaId ("PNP0000"))
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x20, 0x20, 1, 2)
                IO (Decode16, 0xA0, 0xA0, 1, 2)
                IRQNoFlags () { 2 }
            })
        }

        Device (PIT)
        {
            Name (_HID, EisaId ("PNP0100"))
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x40, 0x40, 1, 4)
                IRQNoFlags () { 0 }
            })
        }

        Device (SPKR)
        {
            Name (_HID, EisaId ("PNP0800"))
            Name (_CRS, ResourceTemplate () { IO (Decode16, 0x61, 0x61, 1, 1) })
        }

        Device (RTC)
        {
            Name (_HID, EisaId ("PNP0B00"))
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x70, 0x70, 1, 2)
                IRQNoFlags () { 8 }
            })
        }

        Device (COM1)
        {
            Name (_HID, EisaId ("PNP0501"))
            Name (_UID, 1)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x03F8, 0x03F8, 1, 8)
                IRQNoFlags () { 4 }
            })
        }

        Device (PEVT)
        {
            Name (_HID, "QEMU0001") /* pvpanic, as guests know it */
            Name (_CRS, ResourceTemplate () { IO (Decode16, 0x0505, 0x0505, 1, 1) })
            OperationRegion (PEOR, SystemIO, 0x0505, 1)
            Field (PEOR, ByteAcc, NoLock, Preserve) { PEPT, 8 }
            Method (RDPT, 0, Serialized) { Return (PEPT) }
            Method (WRPT, 1, Serialized) { PEPT = Arg0 }
        }

        /* The generation ID (Microsoft, "Virtual Machine Generation ID"): where it is. */
        Device (VGEN)
        {
            Name (_HID, "TRVS0001")
            Name (_CID, "VM_Gen_Counter")
            Name (_DDN, "VM_Gen_Counter")
            Name (ADDR, Package () { 0x000FF000, 0 })
        }
    }

    Scope (\_GPE)
    {
        /* Something has come to a slot (device check), or is asked back (eject request). */
        Method (_E01, 0, Serialized)
        {
            Local0 = \_SB.PCI0.HPUP
            Local1 = \_SB.PCI0.HPDN
            If (Local0 & 0x01000000) { Notify (\_SB.PCI0.S24, 1) }
            If (Local0 & 0x02000000) { Notify (\_SB.PCI0.S25, 1) }
            If (Local0 & 0x04000000) { Notify (\_SB.PCI0.S26, 1) }
            If (Local0 & 0x08000000) { Notify (\_SB.PCI0.S27, 1) }
            If (Local0 & 0x10000000) { Notify (\_SB.PCI0.S28, 1) }
            If (Local0 & 0x20000000) { Notify (\_SB.PCI0.S29, 1) }
            If (Local0 & 0x40000000) { Notify (\_SB.PCI0.S30, 1) }
            If (Local0 & 0x80000000) { Notify (\_SB.PCI0.S31, 1) }
            If (Local1 & 0x01000000) { Notify (\_SB.PCI0.S24, 3) }
            If (Local1 & 0x02000000) { Notify (\_SB.PCI0.S25, 3) }
            If (Local1 & 0x04000000) { Notify (\_SB.PCI0.S26, 3) }
            If (Local1 & 0x08000000) { Notify (\_SB.PCI0.S27, 3) }
            If (Local1 & 0x10000000) { Notify (\_SB.PCI0.S28, 3) }
            If (Local1 & 0x20000000) { Notify (\_SB.PCI0.S29, 3) }
            If (Local1 & 0x40000000) { Notify (\_SB.PCI0.S30, 3) }
            If (Local1 & 0x80000000) { Notify (\_SB.PCI0.S31, 3) }
        }

        /* The machine goes on from a saved state and has another generation ID. */
        Method (_E05) { Notify (\_SB.VGEN, 0x80) }
    }
}
