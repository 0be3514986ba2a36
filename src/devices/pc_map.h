/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_PC_MAP_H
#define LODGE_PC_MAP_H

/*
 * The board's map: where each chip of the PC answers and which pin it drives. The board, the
 * ACPI and MP tables and the tests read it here, so that they cannot disagree. firmware/dsdt.asl
 * repeats the ports of its devices; test_acpi compares what it can.
 */

/* Ports. */
#define PC_PORT_DMA1 0x00
#define PC_PORT_PIC_MASTER 0x20
#define PC_PORT_PIT 0x40
#define PC_PORT_KBD_DATA 0x60
#define PC_PORT_SYSTEM_B 0x61
#define PC_PORT_KBD_CMD 0x64
#define PC_PORT_RTC 0x70
#define PC_PORT_POST 0x80
#define PC_PORT_SYSTEM_A 0x92
#define PC_PORT_PIC_SLAVE 0xa0
#define PC_PORT_DMA2 0xc0
#define PC_PORT_DELAY 0xed
#define PC_PORT_DEBUG_EXIT 0xf4
#define PC_PORT_COM4 0x2e8
#define PC_PORT_COM2 0x2f8
#define PC_PORT_COM3 0x3e8
#define PC_PORT_COM1 0x3f8
#define PC_PORT_ELCR 0x4d0
#define PC_PORT_PVPANIC 0x505
#define PC_PORT_FW_CFG 0x510
#define PC_PORT_ACPI_PM 0x600
#define PC_PORT_PCI_WINDOW 0xcf8
#define PC_PORT_RESET 0xcf9 /* inside the window; byte accesses only */

/* ISA interrupt requests, which are GSIs too (0 is IOAPIC pin 2). */
#define PC_IRQ_PIT 0
#define PC_IRQ_KBD 1
#define PC_IRQ_CASCADE 2
#define PC_IRQ_COM2 3
#define PC_IRQ_COM1 4
#define PC_IRQ_RTC 8
#define PC_IRQ_SCI 9
#define PC_IRQ_MOUSE 12
#define PC_IRQ_PIRQ_A 10 /* PIRQ A and B */
#define PC_IRQ_PIRQ_C 11 /* PIRQ C and D */
#define PC_PIT_IOAPIC_PIN 2
/* IRQs that the ISA bridge drives by level, as bits of ELCR1 | ELCR2 << 8. */
#define PC_ELCR_LEVEL (1u << PC_IRQ_SCI | 1u << PC_IRQ_PIRQ_A | 1u << PC_IRQ_PIRQ_C)
/* IRQs that the tables call level-triggered, active high: ELCR's and 5, which a guest may choose
 * for a PIRQ. */
#define PC_IRQ_TABLE_LEVEL (PC_ELCR_LEVEL | 1u << 5)

/* Memory. */
#define PC_VGA_GPA 0xa0000u
#define PC_VGA_LEN 0x20000u
#define PC_BIOS_AREA_GPA 0xe0000u /* RSDP and tables of a boot without firmware */
#define PC_BIOS_AREA_LEN 0x20000u
#define PC_MPTABLE_GPA 0xf0000u /* where an operating system looks: MP 1.4, 4.1 */
#define PC_PCI_HOLE_GPA 0xc0000000u
#define PC_PCI_HOLE_LIMIT_GPA 0xfec00000u /* first byte past the hole */
#define PC_IOAPIC_GPA 0xfec00000u
#define PC_HPET_GPA 0xfed00000u
#define PC_LAPIC_GPA 0xfee00000u

/* PCI slots and functions of what is soldered. */
#define PC_SLOT_HOST 0
#define PC_SLOT_PIIX 1
#define PC_FN_ISA 0
#define PC_FN_IDE 1
#define PC_FN_PM 3
#define PC_PCI_PORTS 0xc000 /* I/O BARs from here up where no firmware places them */

#endif
